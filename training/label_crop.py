"""The labeled part of a generated image, and conversions between float and uint8 images.

A label grid is a square of `grid` pixels over the whole image. A crop keeps some of its rows:

           0 +------------+
             |            |
    crop_top +------------+
             |   labels   |  height rows of width = grid columns
             +------------+ crop_top + height
             |            |
        grid +------------+
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.features import reduce_tap
from nets.generator import Generator
from training.errors import TrainingError

MAX_GRID = 512  # default limit; the published label grids are at most this large
SYNTHESIS_BATCH = 4  # images in one pass of the synthesis network


@dataclass(frozen=True)
class LabelCrop:
    """Rows [crop_top, crop_top + height) of a label grid; the size of images and labels."""

    grid: int  # pixels along each side of the label grid
    crop_top: int
    height: int

    @property
    def width(self) -> int:
        """Columns of the crop; only rows are cropped, as for the published cars (64:448 of 512)."""
        return self.grid

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def crop_for_resolution(
    resolution: int, grid: int | None = None, rows: tuple[int, int] | None = None
) -> LabelCrop:
    """Crop for a generator of this resolution in pixels.

    `grid` defaults to the resolution, at most 512. `rows` are the first row and the one past the
    last; default all. Raises TrainingError when either does not fit.
    """
    grid = min(resolution, MAX_GRID) if grid is None else grid
    if not 4 <= grid <= resolution:
        raise TrainingError(
            f"the grid is {grid}; it must be from 4 to {resolution}, the generator's resolution"
        )
    top, end = rows or (0, grid)
    if not 0 <= top < end <= grid:
        raise TrainingError(f"the rows are {top}:{end}; they must lie within 0:{grid}, the grid")
    return LabelCrop(grid, top, end - top)


def cropped(image: Tensor, crop: LabelCrop) -> Tensor:
    """Reduces [N, C, R, R] to the label grid, as the served graph does, and cuts out the crop:
    [N, C, height, width]."""
    return reduce_tap(image, crop.grid)[:, :, crop.crop_top : crop.crop_top + crop.height]


@torch.no_grad()
def images_from_ws(
    generator: Generator, ws: NDArray[np.float32], crop: LabelCrop
) -> NDArray[np.uint8]:
    """Generates w+ [n, num_ws, w_dim] -> uint8 [n, height, width, 3], on the generator's device."""
    device = generator.mapping.w_avg.device
    return np.concatenate(
        [
            rgb_from_float(cropped(generator.synthesis(batch.to(device)).image, crop))
            for batch in torch.from_numpy(ws).split(SYNTHESIS_BATCH)
        ]
    )


def rgb_from_float(images: Tensor) -> NDArray[np.uint8]:
    """float [N, 3, H, W], nominally in [-1, 1] -> uint8 array [N, H, W, 3]."""
    return bytes_from_float(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def bytes_from_float(images: Tensor) -> Tensor:
    """float, nominally in [-1, 1] -> uint8, as in the served graph: x * 127.5 + 128, clipped to
    [0, 255] and truncated."""
    return (images * 127.5 + 128).clamp(0, 255).byte()


def float_from_bytes(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]: the middle of the interval that `bytes_from_float` truncates to
    each byte."""
    return images.float() / 127.5 - 1


def random_crops(
    images: Tensor, count: int, extent: tuple[int, int], rng: torch.Generator
) -> Tensor:
    """Cuts `count` crops of (height, width) from [n, C, H, W], with replacement over images:
    [count, C, height, width]."""
    chosen = torch.randint(len(images), (count,), generator=rng).tolist()
    height, width = extent
    tops, lefts = (
        torch.randint(full - part + 1, (count,), generator=rng).tolist()
        for full, part in zip(images.shape[2:], extent, strict=True)
    )
    return torch.stack(
        [
            images[i, :, top : top + height, left : left + width]
            for i, top, left in zip(chosen, tops, lefts, strict=True)
        ]
    )


def extent_of_crops(images: Tensor, crop: int) -> tuple[int, int]:
    """(height, width) of crops of [n, C, H, W]: `crop` pixels a side, limited to the image's size;
    0: whole images."""
    height, width = images.shape[2:]
    crop = crop or max(height, width)
    return min(crop, height), min(crop, width)
