"""How often each class of the bench world is seen: python -m examples.bench_world.shares

A seed and a number of images enter; a table in Markdown leaves: the share of pixels, of images that
show the class, and of images whose scene has it, seen or not.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import click
import numpy as np
from numpy.typing import NDArray

from examples.bench_world.parts import parts_and_landmarks
from examples.bench_world.render import CHUNK, render
from examples.bench_world.scene import (
    BEARD,
    CLASS_NAMES,
    EYE,
    EYEBROW,
    IRIS,
    LOWER_LIP,
    PLASTER,
    SHARED_COLORS,
    STRAP,
    TEETH,
    UPPER_LIP,
    Scene,
    scene_of_sample,
)


def classes_of_scene(scene: Scene) -> set[int]:
    """Class ids that the scene has, whether they are seen or not."""
    painted = {EYE, EYEBROW, IRIS, LOWER_LIP, UPPER_LIP}
    optional = {
        BEARD: bool(scene.beard),
        TEETH: bool(scene.mouth_open),
        STRAP: scene.strap,
        PLASTER: bool(scene.plaster),
    }
    painted |= {class_id for class_id, there in optional.items() if there}
    return painted | {part.class_id for part in parts_and_landmarks(scene)[0]}


def counts_of_sample(seed: int, index: int) -> NDArray[np.int64]:
    """int64 [2, classes]: pixels of each class in the image, and 1 where its scene has it."""
    scene = scene_of_sample(seed, index)
    counts = np.zeros((2, len(CLASS_NAMES)), np.int64)
    counts[0] = np.bincount(render(scene).mask.ravel(), minlength=len(CLASS_NAMES))
    counts[1, sorted(classes_of_scene(scene))] = 1
    return counts


def table_of_counts(counts: NDArray[np.int64]) -> str:
    """Markdown from counts [n, 2, classes]."""
    pixels = counts[:, 0].sum(axis=0) / counts[:, 0].sum()
    seen, drawn = (counts[:, 0] > 0).mean(axis=0), counts[:, 1].mean(axis=0)
    typical = [np.median(column[column > 0]) if column.any() else 0 for column in counts[:, 0].T]
    lines = [
        "| class | pixels | median area, px | images that show it | scenes with it | color as |",
        "|---|---|---|---|---|---|",
    ]
    for k, name in enumerate(CLASS_NAMES):
        others = [CLASS_NAMES[o] for group in SHARED_COLORS if k in group for o in group if o != k]
        lines.append(
            f"| {name} | {pixels[k]:.3%} | {typical[k]:.0f} | {seen[k]:.2%} | {drawn[k]:.2%} "
            f"| {', '.join(others)} |"
        )
    return "\n".join(lines)


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(1), default=10_000, help="Number of images.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, help="Seed of the scenes.")
@click.option("--workers", type=click.IntRange(1, 256), default=2, help="Processes that render.")
def main(count: int, seed: int, workers: int) -> None:
    """Print the share of pixels and of images of each class."""
    began = time.monotonic()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        counts = list(pool.map(partial(counts_of_sample, seed), range(count), chunksize=CHUNK))
    click.echo(table_of_counts(np.stack(counts)))
    rate = count / (time.monotonic() - began)
    click.echo(f"\n{count} images of seed {seed}, {rate:.0f} a second with {workers} processes")


if __name__ == "__main__":
    main()
