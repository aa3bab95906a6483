"""Taps of the labelled images, kept at their own resolution, and features of single pixels.

The hypercolumn of one 512 px image is 5 to 6 GB; its taps in half precision are 0.16 GB.
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
from training.frame import Frame


@dataclass(frozen=True)
class Level:
    """All taps of one resolution, pixels first, so that a pixel's channels lie together."""

    extent: int  # r
    values: Tensor  # [n * r * r, C]


class PixelFeatures:
    """Features of any pixel of n images, as `nets.features.hypercolumn` has them."""

    def __init__(self, levels: list[Level], frame: Frame, resize: Resize) -> None:
        self.levels = levels
        self.frame = frame
        self.resize = resize
        self.features = sum(level.values.shape[1] for level in levels)

    def gather(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """images, rows, columns int64 [P], within the frame -> float32 or float64 [P, D]."""
        rows = rows + self.frame.crop_top
        return torch.cat([self._of_level(v, images, rows, columns) for v in self.levels], dim=1)

    def _of_level(self, level: Level, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        r = level.extent
        if self.resize == "nearest" or r == self.frame.grid:
            where = (
                images * r * r + rows * r // self.frame.grid * r + columns * r // self.frame.grid
            )
            return computed(level.values[where])
        y0, y1, y = corners(rows, self.frame.grid, r)
        x0, x1, x = corners(columns, self.frame.grid, r)
        parts = [
            computed(level.values[(images * r + row) * r + column])
            * weight[:, None].to(self._dtype)
            for row, column, weight in (
                (y0, x0, (1 - y) * (1 - x)),
                (y0, x1, (1 - y) * x),
                (y1, x0, y * (1 - x)),
                (y1, x1, y * x),
            )
        ]
        return parts[0] + parts[1] + parts[2] + parts[3]

    @property
    def _dtype(self) -> torch.dtype:
        return computed(self.levels[0].values[:0]).dtype


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
    frame: Frame,
    resize: Resize = "bilinear",
    storage: torch.dtype = torch.float16,
) -> PixelFeatures:
    """Runs the generator on w+ [n, num_ws, w_dim], one image at a time, and keeps its taps where it
    runs.

    Taps finer than the grid are reduced to it first, as in the served graph. The release
    stores features in half precision too.
    """
    levels: list[Level] = []
    device = generator.mapping.w_avg.device
    for i, row in enumerate(tqdm(torch.from_numpy(ws).to(device), desc="taps", unit="image")):
        taps = [reduce_tap(t, frame.grid) for t in generator.synthesis(row[None]).taps]
        for j, (extent, group) in enumerate(groupby(taps, key=lambda t: t.shape[-1])):
            of_pixels = torch.cat(list(group), dim=1)[0].flatten(1).t()  # [r * r, C]
            if i == 0:
                empty = of_pixels.new_empty(len(ws) * extent**2, of_pixels.shape[1], dtype=storage)
                levels.append(Level(extent, empty))
            part = levels[j].values[i * extent**2 : (i + 1) * extent**2]
            part.copy_(of_pixels)
            if not torch.isfinite(part).all():
                raise TrainingError(
                    f"a feature map of image {i} at {extent} px has values that are not finite in "
                    f"{storage}, up to {of_pixels.abs().max():g}"
                )
    return PixelFeatures(levels, frame, resize)
