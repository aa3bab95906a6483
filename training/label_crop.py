"""The labeled part of a generated image, and conversions between float and uint8 images.

A label grid covers the whole image. A crop keeps some of its rows:

           0 +------------+
             |            |
    crop_top +------------+
             |   labels   |  height rows of width columns
             +------------+ crop_top + height
             |            |
             +------------+

The nominal extent of the grid, `grid`, is its side in pixels where images are square. In general
the grid has grid / 4 times the rows and columns of the generator's learned constant, `start`.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.config import SQUARE, GeneratorConfig, size_at
from nets.features import reduce_tap
from nets.generator import Generator
from training.errors import TrainingError

MAX_SIDE = 512  # default limit, pixels; the published label grids are at most this large
SYNTHESIS_BATCH = 4  # images in one pass of the synthesis network


@dataclass(frozen=True)
class LabelCrop:
    """Rows [crop_top, crop_top + height) of a label grid; the size of images and labels."""

    grid: int  # nominal extent of the label grid, pixels
    crop_top: int
    height: int
    start: tuple[int, int] = SQUARE

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole grid."""
        return size_at(self.grid, self.start)

    @property
    def width(self) -> int:
        """Columns of the crop; only rows are cropped, as for the published cars (64:448 of 512)."""
        return self.size[1]

    @property
    def facts(self) -> dict[str, int | tuple[int, int]]:
        """The fields as state files have them: without `start` where images are square."""
        return {k: v for k, v in asdict(self).items() if k != "start" or v != SQUARE}

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def crop_for_generator(
    config: GeneratorConfig, grid: int | None = None, rows: tuple[int, int] | None = None
) -> LabelCrop:
    """Crop for a generator.

    `grid` defaults to its resolution, halved until no side has over 512 pixels. `rows` are the
    first row and the one past the last; default all. Raises TrainingError when either does not fit.
    """
    resolution, start = config.resolution, config.start
    if grid is None:
        grid = resolution
        while max(size_at(grid, start)) > MAX_SIDE:
            grid //= 2
    if not 4 <= grid <= resolution:
        raise TrainingError(
            f"the grid is {grid}; it must be from 4 to {resolution}, the generator's resolution"
        )
    if any(grid * side % 4 for side in start):
        raise TrainingError(
            f"the grid is {grid}, so that it would have {grid * start[0] / 4:g} rows and "
            f"{grid * start[1] / 4:g} columns; give a multiple of 4"
        )
    height, _ = size_at(grid, start)
    top, end = rows or (0, height)
    if not 0 <= top < end <= height:
        raise TrainingError(f"the rows are {top}:{end}; they must lie within 0:{height}, the grid")
    return LabelCrop(grid, top, end - top, start)


def cropped(image: Tensor, crop: LabelCrop) -> Tensor:
    """Reduces [N, C, H, W] to the label grid, as the served graph does, and cuts out the crop:
    [N, C, height, width]."""
    return reduce_tap(image, crop.size)[:, :, crop.crop_top : crop.crop_top + crop.height]


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
