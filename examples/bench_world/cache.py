"""Rendered scenes on disk, for training: python -m examples.bench_world.cache --out DIR

A seed and a number of scenes enter; numbered pieces of memory-mapped images and masks leave. Scene
i is a function of (seed, i) alone, so a cache that was interrupted or is to grow goes on.

A quarter of the scenes is drawn on the condition that they have a rare part. That is no bias: the
generator learns a function of z, and more of its inputs are where it is hard.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv

from examples.bench_world.render import RESOLUTION, render
from examples.bench_world.scene import (
    EARRING,
    EYEPATCH,
    PLASTER,
    RARE_SHARES,
    VIEW_COORDINATES,
    Z_DIM,
    scene_from_latents,
)
from labelmint.latents import Purpose, latents

PIECE = 512  # scenes of one piece
CARD = "cache.json"
# Of each 20 scenes these have the part for certain.
FORCED = {0: EARRING, 7: EARRING, 3: EYEPATCH, 13: EYEPATCH, 10: PLASTER}
CYCLE = 20
# The first coordinates of the content, in the order in which a scene reads them.
RARE_COORDINATES = {part: VIEW_COORDINATES + k for k, part in enumerate(RARE_SHARES)}
HALF = (Z_DIM - 1) / 2  # of the Beta distribution of a coordinate, see `uniforms_from_latent`

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class CacheCard:
    """What all pieces of a cache have in common."""

    seed: int
    resolution: int
    piece: int
    renderer_sha256: str


def cached_latents(seed: int, indices: Sequence[int]) -> Float32s:
    """Latents float32 [n, Z_DIM] of the cache's scenes; ValueError for indices out of range."""
    z = latents(seed, Purpose.OBJECT, list(indices), Z_DIM)
    for row, index in zip(z, indices, strict=True):
        if (part := FORCED.get(index % CYCLE)) is not None:
            row[:] = conditioned_on_part(row, part)
    return z


def conditioned_on_part(z: Float32s, part: int) -> Float32s:
    """`z` [Z_DIM] moved to where the scene has a part of RARE_SHARES.

    The uniform number of the part's coordinate is multiplied by its share, and the other
    coordinates keep their ratios; so if `z` is a draw, the result is a draw under this condition.
    """
    coordinate, share = RARE_COORDINATES[part], RARE_SHARES[part]
    direction = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64))
    unit = betainc(HALF, HALF, (1 + direction[coordinate]) / 2)
    moved = 2 * betaincinv(HALF, HALF, unit * share) - 1
    direction *= np.sqrt((1 - moved**2) / (1 - direction[coordinate] ** 2))
    direction[coordinate] = moved
    return np.asarray(direction * np.linalg.norm(z.astype(np.float64)), np.float32)


@dataclass(frozen=True)
class Cache:
    """Scenes on disk, read as they are needed."""

    card: CacheCard
    images: list[NDArray[np.uint8]]  # [P, R, R, 3] each, memory-mapped
    masks: list[NDArray[np.uint8]]  # [P, R, R] each, class ids

    def __len__(self) -> int:
        return len(self.images) * self.card.piece

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[Float32s, NDArray[np.uint8], NDArray[np.uint8]]:
        """z [n, Z_DIM], images [n, R, R, 3] and masks [n, R, R] of these scenes."""
        places = [divmod(int(i), self.card.piece) for i in indices]
        return (
            cached_latents(self.card.seed, [int(i) for i in indices]),
            np.stack([self.images[piece][row] for piece, row in places]),
            np.stack([self.masks[piece][row] for piece, row in places]),
        )


def open_cache(folder: Path) -> Cache:
    """The pieces from the first on without a gap; FileNotFoundError if there is none."""
    card = CacheCard(**json.loads((folder / CARD).read_text()))
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    while (paths := piece_paths(folder, len(images)))[1].exists():
        images.append(np.load(paths[0], mmap_mode="r"))
        masks.append(np.load(paths[1], mmap_mode="r"))
    if not images:
        raise FileNotFoundError(f"{folder} has no whole piece of {card.piece} scenes yet")
    return Cache(card, images, masks)


def piece_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Images and masks of a piece; the masks are written last, so with them the piece is whole."""
    return folder / f"images-{number:05}.npy", folder / f"masks-{number:05}.npy"


def write_piece(folder: Path, card: CacheCard, number: int) -> None:
    """Renders one piece, unless it is there."""
    image_path, mask_path = piece_paths(folder, number)
    if mask_path.exists():
        return
    indices = range(number * card.piece, (number + 1) * card.piece)
    truths = [
        render(scene_from_latents(z, z), card.resolution)
        for z in cached_latents(card.seed, indices)
    ]
    for path, arrays in (
        (image_path, [truth.image for truth in truths]),
        (mask_path, [truth.mask for truth in truths]),
    ):
        partial_path = path.with_suffix(".partial")
        with partial_path.open("wb") as file:
            np.save(file, np.stack(arrays))
        os.replace(partial_path, path)


def grow_cache(folder: Path, card: CacheCard, count: int, workers: int) -> None:
    """Renders the missing pieces of the first `count` scenes, rounded up to whole pieces.

    Raises ValueError if the folder holds a cache of another card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CARD
    if path.exists():
        found = CacheCard(**json.loads(path.read_text()))
        if found != card:
            raise ValueError(
                f"{folder} holds scenes of {found}, not of {card}; choose another folder"
            )
    path.write_text(json.dumps(asdict(card)) + "\n")
    numbers = range(-(-count // card.piece))
    if workers == 1:
        for number in numbers:
            write_piece(folder, card, number)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(partial(write_piece, folder, card), numbers))


@click.command(context_settings={"show_default": True})
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder."
)
@click.option("--count", type=click.IntRange(1), default=40_960, help="Scenes to have, 66 KB each.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=7, help="Seed of the scenes.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that render.")
def main(out: Path, count: int, seed: int, workers: int) -> None:
    """Render scenes for the training of the generator; what is there already stays."""
    from examples.bench_world.__main__ import renderer_sha256

    began = time.monotonic()
    try:
        grow_cache(out, CacheCard(seed, RESOLUTION, PIECE, renderer_sha256()), count, workers)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    scenes = len(open_cache(out))
    click.echo(f"{out} holds {scenes} scenes; this took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
