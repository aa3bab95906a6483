"""One click of the smart tool in the middle of each region, without any correction.

    python -m benchmarks.studio_select
    python -m benchmarks.studio_select --times

On the 16 images of a new project of the demo, by the renderer's masks; regions of 10 pixels and
more, the largest first. "blank": each click on an image without labels. "painted": each click
paints over what the clicks before it have painted, and a click on a painted class takes a part of
it (`PART` in studio/select.py) or, for comparison, as much as the features say.

--times: processor time of a click, and of a scribble of 60 points, with a third of the image
painted; on tables of smooth noise, over the goal of 100 ms. Medians of 5.
"""

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.annotator import deepest, regions_of
from benchmarks.machine import machine_name
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import truth_of_indices
from studio.__main__ import draw_images
from studio.project import Project
from studio.select import (
    COMPONENTS,
    PART,
    FeatureTable,
    FeatureTables,
    Selection,
    selection,
    table_from_values,
)
from studio.turns import Turns
from training.images.sample import SampleConfig, drawn_indices
from training.options import read_generator

LEAST_PIXELS = 10
LEVELS = 40
GOAL_S = 0.1  # of a selection at 256 px


@click.command()
@click.option("--times", is_flag=True, help="Measure the time of selections alone.")
def main(times: bool) -> None:
    if times:
        print(table_of_times())
        return
    generator, card, sha256 = read_generator(GENERATOR, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "set")
        draw_images(generator, card, sha256, folder)
        project = Project(folder)
        tables = FeatureTables(project, generator, Turns())
        truth = truth_of_indices(
            SampleConfig.seed, drawn_indices(project.images), project.images.crop.grid
        ).mask.numpy()
        print("| clicks | regions | mean IoU | at the best level | pixels right in the end |")
        print("|---|---|---|---|---|")
        for title, blank, part in (
            ("blank", True, np.inf),
            ("painted, no limit", False, np.inf),
            (f"painted, at most {PART:.0%} of a class", False, PART),
        ):
            found = [
                clicked(tables.table(stem), exact, blank, part)
                for stem, exact in zip(project.images.stems, truth, strict=True)
            ]
            ious, best = (np.concatenate([one[k] for one in found]) for k in (0, 1))
            right = "" if blank else f"{np.mean([one[2] for one in found]):.3f}"
            print(f"| {title} | {len(ious)} | {ious.mean():.3f} | {best.mean():.3f} | {right} |")


def table_of_times() -> str:
    """Markdown: times over the goal by the side of the image."""
    rng = np.random.default_rng(0)
    lines = [f"machine: {machine_name()}", "| side, px | click | scribble |", "|---|---|---|"]
    for side in (256, 512, 1024):
        noise = rng.normal(size=(side, side, COMPONENTS)).astype(np.float32)
        smooth = ndimage.gaussian_filter(noise, (side / 20, side / 20, 0))
        table = table_from_values(smooth.astype(np.float16))
        other = np.zeros((side, side), bool)
        other[:, : side // 3] = True
        cells = []
        for count in (1, 60):
            seeds, spent = [(side // 2 + i, side // 2) for i in range(count)], []
            for _ in range(5):
                began = time.process_time()
                selection(table, seeds, other, np.inf)
                spent.append(time.process_time() - began)
            cells.append(f"{np.median(spent) / GOAL_S:.2f}")
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def clicked(
    table: FeatureTable, truth: NDArray[np.uint8], blank: bool, part: float
) -> tuple[list[float], list[float], float]:
    """IoU of each region at the proposed and at the best level, and the share of right pixels."""
    unlabeled = 255
    mask = np.full_like(truth, unlabeled)
    proposed, best = [], []
    for region in sorted(regions_of(truth), key=lambda region: -int(region.sum())):
        if region.sum() < LEAST_PIXELS:
            continue
        class_id = int(truth[region][0])
        if blank:
            mask[:] = unlabeled
        chosen = answered(table, mask, deepest(region), class_id, part)
        overlaps = [
            float((painted & region).sum() / (painted | region).sum())
            for painted in (chosen.levels <= level for level in range(LEVELS))
        ]
        proposed.append(overlaps[chosen.proposed])
        best.append(max(overlaps))
        mask[chosen.levels <= chosen.proposed] = class_id
    return proposed, best, float((mask == truth).mean())


def answered(
    table: FeatureTable,
    mask: NDArray[np.uint8],
    place: tuple[int, int],
    class_id: int,
    part: float,
) -> Selection:
    """A click as the studio answers it, with another limit."""
    row, column = place
    under = int(mask[row, column])
    other = ~np.isin(mask, [255, class_id, under])
    painted = int((mask == under).sum()) if under not in (255, class_id) else 0
    return selection(table, [(column, row)], other, part * painted if painted else np.inf)


if __name__ == "__main__":
    main()
