"""Fraction of a training loop's time spent waiting for data, if the engine is faster than the loop.

Compares, alternating: LabelStream on an engine of a known rate; a DataLoader with one worker that
reads the same samples from PNG files; and, with --mds-python, one that reads them from MDS shards.
mosaicml-streaming needs a virtual environment of its own, because it pins numpy.

    python -m benchmarks.trainer_wait [--mds-python V/bin/python] [--steps 150] [--rounds 5]
"""

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from benchmarks.trainer_loop import waiting_share
from labelmint import Client
from labelmint.torch import LabelStream

PX, BATCH, STEP_S = 256, 8, 0.04  # training uses 200 samples per second,
ENGINE = Setting(resolution=PX, batch=BATCH, seconds_per_run=0.02)  # the engine makes 400
FILES = 256  # samples on disk, read repeatedly
OUTPUTS = ("image", "mask")


class Pngs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images and masks in separate files."""

    def __init__(self, folder: Path) -> None:
        self._images = sorted(folder.glob("*.image.png"))
        self._masks = sorted(folder.glob("*.mask.png"))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self._images[index]) as image, Image.open(self._masks[index]) as mask:
            pixels = np.array(image).transpose(2, 0, 1)
            return torch.from_numpy(pixels.copy()), torch.from_numpy(np.array(mask, np.int64))


@click.command()
@click.option(
    "--mds-python", type=click.Path(exists=True), help="Path to a Python with mosaicml-streaming."
)
@click.option("--steps", default=150, help="Steps of each run.")
@click.option("--rounds", default=5, help="Number of runs of each side.")
def main(mds_python: str | None, steps: int, rounds: int) -> None:
    print(f"machine: {machine_name()}")
    with serving(ENGINE) as target, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(target, folder)

        def from_stream() -> float:
            stream = LabelStream(target, batch_size=BATCH, outputs=OUTPUTS)
            return waiting_share(stream, steps, STEP_S)

        def from_pngs() -> float:
            loader = DataLoader(Pngs(folder), BATCH, num_workers=1)
            return waiting_share(chain.from_iterable(repeat(loader)), steps, STEP_S)

        def from_mds() -> float:
            script = str(Path(__file__).with_name("trainer_wait_mds.py"))
            words = [str(mds_python), script, str(folder), str(BATCH), str(steps), str(STEP_S)]
            return float(subprocess.run(words, check=True, capture_output=True).stdout)

        sides: dict[str, Callable[[], float]] = {"LabelStream": from_stream, "PNG": from_pngs}
        if mds_python:
            sides["MDS"] = from_mds
        shares = {name: list[float]() for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                shares[name].append(side())
    print(
        f"{PX} px, batches of {BATCH}, steps of {STEP_S * 1e3:.0f} ms; share of time spent waiting:"
    )
    for name, found in shares.items():
        middle = statistics.median(found)
        print(f"{name:>12} {middle:6.1%}  ({min(found):.1%} to {max(found):.1%})")
    print("goal 5% for LabelStream")


def write_files(target: str, folder: Path) -> None:
    """Writes samples of the stream as PNG, and as arrays for MDS."""
    for index, (image, mask) in enumerate(samples(target)):
        Image.fromarray(image).save(folder / f"{index:06d}.image.png")
        Image.fromarray(mask).save(folder / f"{index:06d}.mask.png")
        np.savez(folder / f"{index:06d}.npz", image=image, mask=mask)
    os.sync()


def samples(target: str) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
    with Client(target) as client:
        for batch in client.stream(BATCH, count=FILES, outputs=OUTPUTS):
            assert batch.images is not None and batch.masks is not None
            yield from zip(batch.images, batch.masks, strict=True)


if __name__ == "__main__":
    main()
