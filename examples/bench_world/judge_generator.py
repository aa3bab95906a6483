"""Compares the bench world's generator with its renderer on fresh scenes, class by class.

Weights enter; figures on stdout and in a JSON file, and a contact sheet (truth, generator, error)
leave. Classes are judged on natural scenes, the rare ones on scenes that have them for certain.

PSNR inside a class's true pixels also falls where the right part has the wrong shade, so it does
not say whether a part was drawn. That has a figure of its own: the share of scenes whose generated
pixels of the part are nearer to the truth than to the same scene rendered without the part.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from checkpoints import CheckpointError, generator_from_file
from examples.bench_world.cache import Float32s, conditioned_on_part
from examples.bench_world.render import CHUNK, RESOLUTION, render
from examples.bench_world.scene import (
    BEARD,
    CLASS_NAMES,
    EARRING,
    EYEPATCH,
    GLASSES,
    HAT,
    NECKLACE,
    PLASTER,
    RARE_SHARES,
    STRAP,
    Z_DIM,
    scene_from_latents,
)
from examples.demo.judge_generator import psnr, sheet_from_images
from labelmint.latents import Purpose, latents
from nets.generator import Generator

# What a scene without the part has in its place.
REMOVALS: dict[int, dict[str, float]] = {
    EARRING: {"earrings": False},
    EYEPATCH: {"eyepatch": 0},
    PLASTER: {"plaster": 0},
    GLASSES: {"glasses": 0.0},
    HAT: {"hat": 0.0},
    BEARD: {"beard": 0.0},
    NECKLACE: {"necklace": False},
    STRAP: {"strap": False},
}
MIN_AREA = 16  # pixels of a part that has to appear
BATCH = 16
SHEET_NATURAL, SHEET_RARE = (
    9,
    1,
)  # columns of the sheet: natural scenes, and scenes of each rare part
ERROR_GAIN = 2.0  # of the sheet's errors


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes to judge by."""

    z: Float32s  # [n, Z_DIM]
    images: NDArray[np.uint8]  # [n, R, R, 3]
    masks: NDArray[np.uint8]  # [n, R, R]
    without: dict[int, dict[int, NDArray[np.uint8]]]  # class -> scene -> image [R, R, 3] without it


@dataclass(frozen=True)
class Score:
    """Errors on natural scenes and on scenes with rare parts; PSNR in dB of colors in [0, 1]."""

    scenes: int
    rare_scenes: int  # of each rare part
    psnr_db: float  # from the mean squared error over all natural images
    worst_decile_db: float  # PSNR that a tenth of the natural images is below
    mean_image_db: float  # of the natural images' mean as the guess for each
    psnr_by_side_db: dict[str, float]  # images and truths averaged to this many pixels a side
    psnr_by_class_db: dict[str, float]  # inside the class's true pixels; rare ones on rare scenes
    appear: dict[str, float]  # share of scenes in which the part is drawn
    appear_of: dict[str, int]  # scenes that this is a share of


def rendered_scenes(z: Float32s, removable: Sequence[int], workers: int = 1) -> Scenes:
    """Scenes of z [n, Z_DIM], and without each of the removable classes where they have it."""
    jobs = [(row, None) for row in z]
    with_workers = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    try:
        mapped = with_workers.map if with_workers else map
        options = {"chunksize": CHUNK} if with_workers else {}
        whole = list(mapped(_rendered, jobs, **options))
        masks = np.stack([mask for _, mask in whole])
        places = [
            (part, i)
            for part in removable
            for i in range(len(z))
            if (masks[i] == part).sum() >= MIN_AREA
        ]
        cut = mapped(_rendered, [(z[i], part) for part, i in places], **options)
        without: dict[int, dict[int, NDArray[np.uint8]]] = {part: {} for part in removable}
        for (part, i), (image, _) in zip(places, cut, strict=True):
            without[part][i] = image
    finally:
        if with_workers:
            with_workers.shutdown()
    return Scenes(z, np.stack([image for image, _ in whole]), masks, without)


def _rendered(job: tuple[Float32s, int | None]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and mask of a latent, without a part if one is named."""
    z, part = job
    scene = scene_from_latents(z, z)
    truth = render(scene if part is None else replace(scene, **REMOVALS[part]))  # type: ignore[arg-type]
    return truth.image, truth.mask


def drawn_images(generator: Generator, z: Float32s) -> Float32s:
    """The generator's images float32 [n, R, R, 3] in [0, 1]."""
    batches = [
        (generator(rows).clamp(-1, 1) * 0.5 + 0.5).permute(0, 2, 3, 1).numpy()
        for rows in torch.from_numpy(z).split(BATCH)
    ]
    return np.concatenate(batches)


def colors(images: NDArray[np.uint8]) -> Float32s:
    """Bytes as colors float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def decibels(squared_error: float) -> float:
    """PSNR of a mean squared error of colors in [0, 1]."""
    return float(psnr(torch.tensor(4 * squared_error)))


def class_errors(error: Float32s, masks: NDArray[np.uint8]) -> tuple[Float32s, Float32s]:
    """Sum of squared errors and count of pixels of each class, from errors [n, R, R] of a pixel."""
    ids, classes = masks.ravel(), len(CLASS_NAMES)
    sums = np.bincount(ids, error.ravel(), minlength=classes).astype(np.float32)
    return sums, np.bincount(ids, minlength=classes).astype(np.float32)


def appearances(image: Float32s, scenes: Scenes, part: int) -> list[bool]:
    """Whether the part is drawn, of each scene that shows it; image float32 [n, R, R, 3]."""
    found = []
    for i, without in scenes.without[part].items():
        there = scenes.masks[i] == part
        to_truth = np.square(image[i][there] - colors(scenes.images[i][there])).sum()
        to_without = np.square(image[i][there] - colors(without[there])).sum()
        found.append(bool(to_truth < to_without))
    return found


def judge(generator: Generator, natural: Scenes, rare: dict[int, Scenes]) -> Score:
    """The score on natural scenes, and for each rare class on its own scenes."""
    image = drawn_images(generator, natural.z)
    truth = colors(natural.images)
    error = np.square(image - truth).mean(axis=3)
    by_image = error.mean(axis=(1, 2))
    sums, counts = class_errors(error, natural.masks)
    appear = {part: appearances(image, natural, part) for part in natural.without}
    for part, scenes in rare.items():
        drawn = drawn_images(generator, scenes.z)
        rare_error = np.square(drawn - colors(scenes.images)).mean(axis=3)
        rare_sums, rare_counts = class_errors(rare_error, scenes.masks)
        sums[part], counts[part] = rare_sums[part], rare_counts[part]
        appear[part] = appearances(drawn, scenes, part)
    return Score(
        scenes=len(natural.z),
        rare_scenes=min((len(scenes.z) for scenes in rare.values()), default=0),
        psnr_db=decibels(float(by_image.mean())),
        worst_decile_db=decibels(float(np.quantile(by_image, 0.9))),
        mean_image_db=decibels(float(np.square(truth - truth.mean(axis=0)).mean())),
        psnr_by_side_db=psnr_by_side(image - truth),
        psnr_by_class_db={
            name: decibels(float(sums[k] / counts[k]))
            for k, name in enumerate(CLASS_NAMES)
            if counts[k]
        },
        appear={CLASS_NAMES[p]: float(np.mean(found)) for p, found in appear.items() if found},
        appear_of={CLASS_NAMES[p]: len(found) for p, found in appear.items() if found},
    )


def psnr_by_side(difference: Float32s) -> dict[str, float]:
    """PSNR at full, half and quarter resolution, of differences [n, R, R, 3]."""
    error, found = torch.from_numpy(difference).permute(0, 3, 1, 2), {}
    for _ in range(3):
        found[str(error.shape[-1])] = decibels(float(error.square().mean()))
        error = F.avg_pool2d(error, 2)
    return found


def table_of_score(score: Score) -> str:
    """Markdown: a row a class, with how often it appears where that is known."""
    lines = [
        f"{score.scenes} scenes: {score.psnr_db:.2f} dB (a tenth is under "
        f"{score.worst_decile_db:.2f} dB; their mean image as the guess: "
        f"{score.mean_image_db:.2f} dB); averaged to "
        + ", ".join(f"{side} px {db:.2f} dB" for side, db in score.psnr_by_side_db.items()),
        "",
        "| class | PSNR inside, dB | drawn in | of scenes |",
        "|---|---|---|---|",
    ]
    for name, db in score.psnr_by_class_db.items():
        share = (
            f"{score.appear[name]:.0%} | {score.appear_of[name]}" if name in score.appear else " | "
        )
        lines.append(f"| {name} | {db:.1f} | {share} |")
    return "\n".join(lines)


def rows_of_sheet(
    generator: Generator, scenes: Sequence[Scenes], counts: Sequence[int]
) -> list[Tensor]:
    """Truth, generated and error, each float32 [C, 3, R, R] in [-1, 1], of the first of each."""
    z = np.concatenate([s.z[:n] for s, n in zip(scenes, counts, strict=True)])
    truth = colors(np.concatenate([s.images[:n] for s, n in zip(scenes, counts, strict=True)]))
    image = drawn_images(generator, z)
    error = np.clip(ERROR_GAIN * np.abs(image - truth), 0, 1)
    return [torch.from_numpy(a).permute(0, 3, 1, 2) * 2 - 1 for a in (truth, image, error)]


@click.command(context_settings={"show_default": True})
@click.argument("weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scenes", type=click.IntRange(SHEET_NATURAL), default=256, help="Natural scenes.")
@click.option(
    "--rare", type=click.IntRange(SHEET_RARE), default=64, help="Scenes of each rare part."
)
@click.option("--seed", type=click.IntRange(0), default=1_000_003, help="Of the scenes.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that render.")
@click.option("--figures", type=click.Path(dir_okay=False, path_type=Path), help="JSON to write.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="PNG to write.")
def main(
    weights: Path,
    scenes: int,
    rare: int,
    seed: int,
    workers: int,
    figures: Path | None,
    sheet: Path | None,
) -> None:
    """Print the errors of WEIGHTS on scenes that no training has seen."""
    try:
        generator, _ = generator_from_file(weights)
    except CheckpointError as error:
        raise click.ClickException(str(error)) from error
    size, latent = generator.config.resolution, generator.config.z_dim
    if (size, latent) != (RESOLUTION, Z_DIM):
        raise click.ClickException(
            f"{weights} makes images of {size} px from z of {latent}; the world has {RESOLUTION} "
            f"px and z of {Z_DIM}"
        )
    z = latents(seed, Purpose.OBJECT, range(scenes), Z_DIM)
    common = [part for part in REMOVALS if part not in RARE_SHARES]
    natural = rendered_scenes(z, common, workers)
    forced = {}
    for k, part in enumerate(RARE_SHARES):
        start = scenes + k * rare
        rows = latents(seed, Purpose.OBJECT, range(start, start + rare), Z_DIM)
        rows = np.stack([conditioned_on_part(row, part) for row in rows])
        forced[part] = rendered_scenes(rows, [part], workers)
    score = judge(generator, natural, forced)
    click.echo(table_of_score(score))
    if figures:
        figures.write_text(json.dumps(asdict(score), indent=1) + "\n")
    if sheet:
        counts = [SHEET_NATURAL] + [SHEET_RARE] * len(forced)
        rows_shown = rows_of_sheet(generator, [natural, *forced.values()], counts)
        sheet_from_images(rows_shown, scale=1).save(sheet)


if __name__ == "__main__":
    main()
