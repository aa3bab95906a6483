"""Time and memory of exporting a large pair: StyleGAN2 config f at 1024 px, labels at 512 px.

Random weights of HandsOff faces' sizes: D = 6080, hidden 256 and 32, 19 classes, 10 members.
Each step is a process of its own, so that its peak is its own: the export command as a user runs
it, without calibration, and a server's way to a first sample.

    python -m benchmarks.large_export [--folder DIR] [--half/--no-half]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from benchmarks.machine import machine_name
from checkpoints import (
    ClassCard,
    GeneratorCard,
    InterpreterCard,
    SegmentationCard,
    card_from_config,
    head_cards,
    sha256_of_file,
    write_generator,
    write_interpreter,
)
from nets.config import GeneratorConfig, channels_from_base
from nets.interpreter import HeadConfig, Interpreter
from nets.stylegan2 import Generator

CLASSES, MEMBERS, GRID = 19, 10, 512
GOALS = "goals 8 GB and 15 minutes"
FIRST_SAMPLE = """
import sys, time
from pathlib import Path
import numpy as np
from bundle import open_bundle
from engines import EngineOptions, open_engine
bundle = open_bundle(Path(sys.argv[1]), verify=False)
began = time.perf_counter()
engine = open_engine(bundle, EngineOptions(batch_sizes=(1,)))
loaded = time.perf_counter()
g = bundle.manifest.generator
ws = np.random.default_rng(0).standard_normal((1, g.num_ws, g.w_dim)).astype(np.float32)
result = engine.run(ws, np.full(1, np.inf, np.float32), engine.outputs)
print(f"session {loaded - began:.0f} s, one sample {time.perf_counter() - loaded:.1f} s")
"""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="To keep the files in.")
@click.option("--half/--no-half", default=True, help="The float16 graph too, or not.")
def main(folder: Path | None, half: bool) -> None:
    print(f"machine: {machine_name()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        generator, interpreter = write_weights(folder)
        seconds, peak, _ = run(
            "-m", "export", "bundle", "--generator", str(generator), "--interpreter",
            str(interpreter), "--out", str(folder / "bundle"), "--force", "--parity-samples", "1",
            "--half" if half else "--no-half", "--batch", "1",
        )  # fmt: skip
        print(f"export: {seconds / 60:.1f} minutes, peak {peak / 1e9:.2f} GB ({GOALS})", flush=True)
        _, peak, said = run("-c", FIRST_SAMPLE, str(folder / "bundle"))
        print(f"labeller.onnx in ONNX Runtime: {said}, peak {peak / 1e9:.2f} GB")


def write_weights(folder: Path) -> tuple[Path, Path]:
    """Random weights and their cards, in files."""
    torch.manual_seed(0)
    config = GeneratorConfig(1024, channels_from_base(1024, 32768))
    generator = folder / "generator.safetensors"
    write_generator(
        generator,
        Generator(config).eval(),
        GeneratorCard(
            format=1,
            kind="generator",
            family="stylegan2",
            config=card_from_config(config),
            view_layers=0,
            truncation_psi=0.7,
            truncation_cutoff=config.num_ws,
            licences=["CC0-1.0"],
            made="random",
        ),
    )
    head = HeadConfig("segmentation", config.features, (256, 32), CLASSES, MEMBERS)
    ensemble = Interpreter((head,)).eval()
    for weight, fan in (
        (ensemble.head("segmentation").linear1.weight, config.features),
        (ensemble.head("segmentation").weight2, 256),
        (ensemble.head("segmentation").weight3, 32),
    ):
        weight.data.normal_(0, fan**-0.5)
    interpreter = folder / "interpreter.safetensors"
    write_interpreter(
        interpreter,
        ensemble,
        InterpreterCard(
            format=1,
            kind="interpreter",
            generator_sha256=sha256_of_file(generator),
            tap_recipe="styledconv+const",
            features=config.features,
            grid=GRID,
            crop_top=0,
            height=GRID,
            width=GRID,
            resize="bilinear",
            score_source="segmentation",
            licences=["CC0-1.0"],
            made="random",
            heads=head_cards(ensemble),
            segmentation=SegmentationCard(
                classes=[ClassCard(name=f"class {i}", color=i) for i in range(CLASSES)]
            ),
        ),
    )
    return generator, interpreter


def run(*words: str) -> tuple[float, int, str]:
    """Seconds, peak resident bytes and last line of a Python process; its end if it fails."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python {' '.join(words[:3])} failed with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024, lines[-1] if lines else ""


if __name__ == "__main__":
    main()
