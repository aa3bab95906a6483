"""Cost of the content that predicates compare: a labeller with it and without, alternating.

    python -m benchmarks.content [--network "64 px, 8 classes"] [--rounds 9] [--batch 4]

Both graphs of a network have the same weights and latents; random ones of masks alone, for the time
depends on their sizes alone, and the demo's with masks, keypoints and depth (after make demo). The
ratio is the time with content over that without.
"""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime as ort

from benchmarks.gpu_cases import CONFIG_F
from benchmarks.machine import machine_name
from benchmarks.random_weights import write_weights
from benchmarks.sizes import Size
from engines.content import boxes_of_all
from examples.demo.__main__ import GENERATOR
from export.bundle_from_weights import quiet_exporter
from export.graph.labeller import BOXES, Labeller
from export.graph.to_onnx import labeller_onnx
from export.weights import WeightFiles, weights_from_files

NETWORKS = {
    "64 px, 8 classes": Size(64, 4096, 64, (64, 32), 8, 5),
    "128 px, 34 classes": Size(128, 8192, 128, (128, 32), 34, 10),
    "256 px, 34 classes": Size(256, CONFIG_F, 256, (128, 32), 34, 10),
}


DEMO = "demo, 64 px, 8 classes, keypoints, depth"


@click.command()
@click.option("--rounds", default=9, type=click.IntRange(1), help="Pairs of runs.")
@click.option("--batch", default=4, type=click.IntRange(1))
@click.option(
    "--network",
    "names",
    multiple=True,
    default=(*tuple(NETWORKS)[:2], DEMO),
    type=click.Choice((*NETWORKS, DEMO)),
)
def main(rounds: int, batch: int, names: tuple[str, ...]) -> None:
    print(f"machine: {machine_name()}; {rounds} pairs, batch {batch}, one thread\n")
    print("| network | CPU ms per sample: without | with | ratio |")
    print("|---|---|---|---|")
    for name in names:
        without, content = sessions_of(name)
        extents = without.get_inputs()[0].shape[1:]
        ws = np.random.default_rng(0).standard_normal((batch, *extents)).astype(np.float32)
        feed = {"ws": ws, "max_uncertainty": np.full(batch, np.inf, np.float32)}
        alternatives, columns = content.get_inputs()[2].shape[1::2]
        boxes = np.repeat(boxes_of_all(alternatives, columns)[None], batch, axis=0)
        runs = [(without, feed), (content, {**feed, "boxes": boxes})]
        for run in runs:  # warm-up
            cpu_seconds(*run)
        pairs = [[cpu_seconds(*run) for run in runs] for _ in range(rounds)]
        ms = [1e3 / batch * statistics.median(side) for side in zip(*pairs, strict=True)]
        ratios = [b / a for a, b in pairs]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"| {name} | {ms[0]:.2f} | {ms[1]:.2f} | {spread} |", flush=True)


def sessions_of(network: str) -> list[ort.InferenceSession]:
    """Without content, and with it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        generator, interpreter = GENERATOR, Path("demo/interpreter.safetensors")
        if network != DEMO:
            generator, interpreter = write_weights(folder, NETWORKS[network])
        weights = weights_from_files(WeightFiles(generator, interpreter=interpreter))
        for boxes in (0, BOXES):
            labeller = Labeller(weights.generator, weights.interpreter, weights.spec, boxes=boxes)
            with quiet_exporter():
                labeller_onnx(labeller, folder / "labeller.onnx")
            sessions.append(ort.InferenceSession(folder / "labeller.onnx", options))
    return sessions


def cpu_seconds(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> float:
    """CPU seconds of one run with all outputs."""
    began = time.process_time()
    session.run(None, feed)
    return time.process_time() - began


if __name__ == "__main__":
    main()
