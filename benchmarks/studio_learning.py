"""A round of the studio's learner on all cores against all but one, beside a busy server.

    python -m benchmarks.studio_learning [--rounds 5]

Two projects of the demo's generator, the same two labeled images each. In turns, each trains one
round while a thread of another process computes smart selections as a person's clicks ask for
them, one every 0.2 s. Prints the ratios of wall time of the rounds, and of the selections.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import click
import torch

from benchmarks.machine import machine_name
from checkpoints import ClassCard, sha256_of_file
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import labels_of_indices
from examples.demo.scene import CLASS_NAMES, PALETTE
from studio.learning import Apprentice, Job
from studio.project import Project
from studio.select import FeatureTables
from studio.turns import Turns
from training.images.sample import SampleConfig, drawn_indices, sample_images
from training.label_crop import crop_for_generator
from training.options import read_generator

EVERY_S = 0.2
STEPS = 60
NICE = 10


@click.command()
@click.option("--rounds", default=5, help="Number of pairs of rounds.")
def main(rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder))
        trained: dict[int, list[float]] = {cores: [], max(1, cores - 1): []}
        answered: dict[int, list[float]] = {threads: [] for threads in trained}
        if len(trained) == 1:
            raise click.ClickException("there is one core; two are needed to leave one free")
        for _ in range(rounds):
            for threads in trained:
                seconds, clicks = one_round(Path(folder), threads)
                trained[threads].append(seconds)
                answered[threads].append(clicks)
    many, fewer = trained
    print(f"machine: {machine_name()}; load {os.getloadavg()[0]:.1f}")
    for what, figures in (("round", trained), ("selection", answered)):
        ratios = [a / b for a, b in zip(figures[many], figures[fewer], strict=True)]
        medians = [f"{statistics.median(figures[threads]):.3f} s" for threads in (many, fewer)]
        print(
            f"{what}: {many} threads take {statistics.median(ratios):.2f} times as long as "
            f"{fewer} ({min(ratios):.2f} to {max(ratios):.2f}); medians "
            f"{' and '.join(medians)}"
        )


def make_project(folder: Path) -> None:
    """Four images of the demo's generator, of which the first two have the renderer's masks."""
    generator, _, sha256 = read_generator(GENERATOR, None)
    images = sample_images(
        generator, SampleConfig(4, 64), crop_for_generator(generator.config), folder / "set", sha256
    )
    truth = labels_of_indices(generator, SampleConfig.seed, drawn_indices(images))
    project = Project(folder / "set")
    project.set_classes([
        ClassCard(name=name, color=color) for name, color in zip(CLASS_NAMES, PALETTE, strict=True)
    ])  # fmt: skip
    assert truth.masks is not None
    for stem, mask in list(zip(images.stems, truth.masks, strict=True))[:2]:
        project.save_mask(stem, mask.tobytes(), "none")


def one_round(folder: Path, threads: int) -> tuple[float, float]:
    """Seconds of a round with this number of threads, and the median of selections beside it."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    learner = multiprocessing.get_context("spawn").Process(
        target=learn, args=(folder / "set", threads, theirs), daemon=True
    )
    learner.start()
    generator, _, _ = read_generator(GENERATOR, None)
    project = Project(folder / "set")
    tables = FeatureTables(project, generator, Turns())
    stem = project.images.stems[2]
    blank, _ = project.mask(stem)
    tables.select(stem, [(32, 32)], 1, blank)  # reads the features
    ours.recv()  # the learner is ready
    ours.send("go")
    clicks: list[float] = []
    while not ours.poll(EVERY_S):
        begin = time.perf_counter()
        tables.select(stem, [(20 + len(clicks) % 24, 32)], 1, project.mask(stem)[0])
        clicks.append(time.perf_counter() - begin)
    seconds = float(ours.recv())
    learner.join()
    return seconds, statistics.median(clicks)


def learn(folder: Path, threads: int, pipe: Connection) -> None:
    """The learner's process: one cold round."""
    os.nice(NICE)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  its events, for the server
    torch.set_num_threads(threads)
    generator, card, _ = read_generator(GENERATOR, None)
    apprentice = Apprentice(generator, card, sha256_of_file(GENERATOR), folder)
    apprentice.interpreter = None
    pipe.send("ready")
    pipe.recv()
    begin = time.perf_counter()
    apprentice.learn(Job(cold_steps=STEPS))
    pipe.send(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
