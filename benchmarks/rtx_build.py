"""Layers, memory and build time of TensorRT for RTX plans by size of the labeller, without a GPU.

    python -m benchmarks.rtx_build [--large] [--rounds 2]

Each row changes one size of a small labeller in half precision, for batches of 8. Seconds are CPU
seconds of the builder, the least of some rounds, relative to the first row of the same run.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from benchmarks.machine import machine_name
from engines.build_report import BuildReport, plan_and_report
from engines.onnx_graph import OnnxGraph
from engines.tensorrt_build import PlanRequest
from engines.tensorrt_module import tensorrt_rtx_module, version_of
from export.bundle_from_weights import STRIP_PIXELS, quiet_exporter
from export.graph.labeller import Labeller
from export.graph.spec import LabelSpec
from export.graph.to_onnx import half_by_float32, labeller_onnx
from nets.config import GeneratorConfig
from nets.interpreter import HeadConfig, HeadKind, Interpreter
from nets.stylegan2 import Generator

BATCH = 8
OUTPUTS: dict[HeadKind, int] = {"segmentation": 8, "keypoints": 8, "depth": 1}


@dataclass(frozen=True)
class Shape:
    """Sizes of one labeller."""

    members: int = 2
    kinds: tuple[HeadKind, ...] = ("segmentation",)
    classes: int = 8
    resolution: int = 32
    width: int = 32  # channels at every level
    hidden: tuple[int, int] = (32, 16)


BASE = Shape()
ALL = tuple(OUTPUTS)
SWEEP = {
    "2 members, 1 head, 8 classes, 32 px": BASE,
    "4 members": replace(BASE, members=4),
    "8 members": replace(BASE, members=8),
    "16 members": replace(BASE, members=16),
    "2 heads": replace(BASE, kinds=ALL[:2]),
    "3 heads": replace(BASE, kinds=ALL),
    "32 classes": replace(BASE, classes=32),
    "128 classes": replace(BASE, classes=128),
    "64 px": replace(BASE, resolution=64),
    "128 px": replace(BASE, resolution=128),
    "256 px": replace(BASE, resolution=256),
}
LARGE = {
    "HandsOff faces at 512 px": Shape(10, ALL[:1], 19, 512, 512, (256, 32)),
}


@click.command()
@click.option("--large", is_flag=True, help="Add an ensemble of ten members at 512 px; minutes.")
@click.option("--rounds", default=2, type=click.IntRange(1), help="Builds of each row.")
def main(large: bool, rounds: int) -> None:
    trt = tensorrt_rtx_module()
    print(f"machine: {machine_name()}; TensorRT for RTX {version_of(trt)}; batches of {BATCH}\n")
    print("| labeller | layers | after fusion | weights MB | working MB | seconds, relative |")
    print("|---|---|---|---|---|---|")
    first = 0.0
    for name, shape in (SWEEP | (LARGE if large else {})).items():
        report, seconds = measured(trt, shape, 1 if name in LARGE else rounds)
        first = first or seconds
        print(
            f"| {name} | {report.parsed_layers} | {len(report.layers)} "
            f"| {report.weights_bytes / 1e6:.1f} | {report.activation_bytes[0] / 1e6:.0f} "
            f"| {seconds / first:.2f} |",
            flush=True,
        )
    print(f"\nfirst row: {first:.2f} CPU seconds")


def measured(trt: Any, shape: Shape, rounds: int) -> tuple[BuildReport, float]:
    """The report, and the least CPU seconds of a build."""
    with TemporaryDirectory() as folder:
        path, labeller = Path(folder, "labeller.onnx"), labeller_of(shape)
        with quiet_exporter(), half_by_float32():
            labeller_onnx(labeller, path)
        graph = OnnxGraph(path, path.read_bytes())
        synthesis = labeller.synthesis
        shapes = {"ws": (BATCH, synthesis.num_ws, synthesis.w_dim)} | {
            name: (BATCH, *row.shape[1:]) for name, row in labeller.filter_inputs.items()
        }
        seconds = []
        for _ in range(rounds):
            began = time.process_time()
            _, report = plan_and_report(trt, PlanRequest(graph, True, (shapes,)))
            seconds.append(time.process_time() - began)
    return report, min(seconds)


def labeller_of(shape: Shape) -> Labeller:
    """A labeller with random weights."""
    torch.manual_seed(0)
    channels = tuple(
        min(shape.width, 32768 // 2**k) for k in range(2, shape.resolution.bit_length())
    )
    config = GeneratorConfig(shape.resolution, channels, z_dim=64, w_dim=64, mapping_layers=2)
    outputs = OUTPUTS | {"segmentation": shape.classes}
    interpreter = Interpreter(
        tuple(
            HeadConfig(kind, config.features, shape.hidden, outputs[kind], shape.members)
            for kind in shape.kinds
        )
    ).eval()
    spec = LabelSpec(shape.resolution, 0, shape.resolution, shape.resolution, shape.kinds[0])
    return Labeller(
        Generator(config).eval(),
        interpreter,
        spec,
        "float16",
        strip_pixels=STRIP_PIXELS["float16"],
    )


if __name__ == "__main__":
    main()
