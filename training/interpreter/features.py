"""Taps of the labelled images, kept at their own resolution, and features of single pixels.

The hypercolumn of one 512 px image is 5 to 6 GB; its taps in half precision are 0.16 GB, and less
where it is known which pixels will be asked for.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nets.features import Resize, reduce_tap
from nets.generator import Generator
from training.errors import TrainingError
from training.label_crop import LabelCrop


@dataclass(frozen=True)
class Level:
    """All taps of one resolution, pixels first, so that a pixel's channels lie together."""

    extent: int  # r
    values: Tensor  # [n * r * r, C], or those of its rows that are needed
    position: Tensor | None = None  # int32 [n * r * r], the row of values; -1: not needed

    def at(self, pixels: Tensor) -> Tensor:
        """Flattened pixels int64 [P] -> values [P, C], computed with as `computed` says."""
        rows = pixels if self.position is None else self.position[pixels]
        return computed(self.values[rows])


class PixelFeatures:
    """Features of any pixel of n images, as `nets.features.hypercolumn` has them."""

    def __init__(self, levels: list[Level], crop: LabelCrop, resize: Resize) -> None:
        self.levels = levels
        self.crop = crop
        self.resize = resize
        self.features = sum(level.values.shape[1] for level in levels)

    def gather(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """images, rows, columns int64 [P], within the crop -> float32 or float64 [P, D]."""
        rows = rows + self.crop.top
        return torch.cat([self._of_level(v, images, rows, columns) for v in self.levels], dim=1)

    def _of_level(self, level: Level, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        r, grid = level.extent, self.crop.grid
        start = images * r * r
        if self.resize == "nearest" or r == grid:
            return level.at(start + rows * r // grid * r + columns * r // grid)
        y0, y1, y = corners(rows, grid, r)
        x0, x1, x = corners(columns, grid, r)
        total = torch.zeros(())
        for row, column, weight in (
            (y0, x0, (1 - y) * (1 - x)),
            (y0, x1, (1 - y) * x),
            (y1, x0, y * (1 - x)),
            (y1, x1, y * x),
        ):
            values = level.at(start + row * r + column)
            total = total + values * weight[:, None].to(values.dtype)
        return total


def corners(positions: Tensor, grid: int, extent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Grid positions int64 [P] -> the two taps around each, int64, and the second one's weight
    float64: half-pixel centres, edges replicated."""
    source = ((positions.double() + 0.5) * extent / grid - 0.5).clamp(min=0)
    low = source.long()
    return low, (low + 1).clamp(max=extent - 1), source - low


def computed(stored: Tensor) -> Tensor:
    """Half precision as float32; what is wider stays."""
    return stored.float() if stored.dtype == torch.float16 else stored


@torch.no_grad()
def features_from_ws(
    generator: Generator,
    ws: NDArray[np.float32],
    crop: LabelCrop,
    resize: Resize = "bilinear",
    storage: torch.dtype = torch.float16,
    needed: NDArray[np.bool_] | None = None,  # [n, H, W], of the crop; None: every pixel
) -> PixelFeatures:
    """Runs the generator on w+ [n, num_ws, w_dim], one image at a time, and keeps its taps where it
    runs.

    Taps finer than the grid are reduced to it first, as in the served graph. The release
    stores features in half precision too. Raises TrainingError for taps that do not fit in it.
    """
    levels: list[Level] = []
    device = generator.mapping.w_avg.device
    kept = None if needed is None else [torch.from_numpy(_of_grid(n, crop)) for n in needed]
    for i, row in enumerate(tqdm(torch.from_numpy(ws).to(device), desc="taps", unit="image")):
        taps = [reduce_tap(t, crop.grid) for t in generator.synthesis(row[None]).taps]
        groups = [list(group) for _, group in groupby(taps, key=lambda t: t.shape[-1])]
        if i == 0:
            levels = [_empty_level(len(ws), group, crop, storage, kept) for group in groups]
        for level, group in zip(levels, groups, strict=True):
            _store(level, i, group, kept)
    return PixelFeatures(levels, crop, resize)


def _empty_level(
    images: int,
    taps: list[Tensor],
    crop: LabelCrop,
    storage: torch.dtype,
    kept: list[Tensor] | None,
) -> Level:
    extent, channels = taps[0].shape[-1], sum(t.shape[1] for t in taps)
    if kept is None or extent != crop.grid:
        rows, position = images * extent**2, None
    else:
        chosen = torch.cat(kept)
        rows = int(chosen.sum())
        position = torch.where(chosen, chosen.cumsum(0) - 1, -1).to(taps[0].device, torch.int32)
    return Level(extent, taps[0].new_empty(rows, channels, dtype=storage), position)


def _store(level: Level, image: int, taps: list[Tensor], kept: list[Tensor] | None) -> None:
    """Writes the pixels of one image; tap by tap, which takes the least memory."""
    pixels = level.extent**2
    chosen: Tensor | None = None
    rows = level.values[image * pixels : (image + 1) * pixels]
    if level.position is not None and kept is not None:
        chosen = kept[image].nonzero()[:, 0].to(taps[0].device)
        first = sum(int(k.sum()) for k in kept[:image])
        rows = level.values[first : first + len(chosen)]
    channel = 0
    for tap in taps:
        part = rows[:, channel : channel + tap.shape[1]]
        of_pixels = tap[0].flatten(1).t()
        part.copy_(of_pixels if chosen is None else of_pixels[chosen])
        channel += tap.shape[1]
        if not torch.isfinite(part).all():
            raise TrainingError(
                f"a feature map of image {image} at {level.extent} px has values that are not "
                f"finite in {part.dtype}, up to {tap.abs().max():g}"
            )


def _of_grid(needed: NDArray[np.bool_], crop: LabelCrop) -> NDArray[np.bool_]:
    """[H, W] of the crop -> [grid * grid]."""
    whole = np.zeros((crop.grid, crop.grid), bool)
    whole[crop.top : crop.top + crop.height] = needed
    return whole.ravel()
