"""What of a generated image is labelled: the label grid and the rows of it that are kept."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.features import reduce_tap
from nets.generator import Generator
from training.errors import TrainingError

MAX_GRID = 512  # the published grids' largest, and the default's
AT_ONCE = 4  # images of one synthesis pass


@dataclass(frozen=True)
class LabelCrop:
    """Images and labels are `height` rows, from `top` on, of a square of `grid` pixels."""

    grid: int
    top: int
    height: int

    @property
    def width(self) -> int:
        """Columns; only rows are cropped, as the published cars do it (64:448 of 512)."""
        return self.grid

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def crop_for_resolution(
    resolution: int, grid: int | None = None, rows: tuple[int, int] | None = None
) -> LabelCrop:
    """The crop of a generator's labels; the grid is its resolution, at most 512, if not given.

    Raises TrainingError when the grid or the rows (first, one past the last) do not fit.
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
    """[N, C, R, R] -> [N, C, height, width], reduced as the served graph does it."""
    return reduce_tap(image, crop.grid)[:, :, crop.top : crop.top + crop.height]


def bytes_from_colours(colours: Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W], nominally in [-1, 1] -> uint8 [N, H, W, 3] (x 127.5 + 128, cut off)."""
    values = (colours * 127.5 + 128).clamp(0, 255).byte()
    return values.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.no_grad()
def images_from_ws(
    generator: Generator, ws: NDArray[np.float32], crop: LabelCrop
) -> NDArray[np.uint8]:
    """w+ [n, num_ws, w_dim] -> uint8 [n, height, width, 3]; computed where the generator is."""
    device = generator.mapping.w_avg.device
    return np.concatenate(
        [
            bytes_from_colours(cropped(generator.synthesis(chunk.to(device)).image, crop))
            for chunk in torch.from_numpy(ws).split(AT_ONCE)
        ]
    )


def float_from_bytes(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], the middle of what x * 127.5 + 128 truncates to the byte."""
    return images.float() / 127.5 - 1


def bytes_from_float(images: Tensor) -> Tensor:
    """float32 -> uint8, as the served graph does it: truncated, and clipped to [-1, 1]."""
    return (images * 127.5 + 128).clamp(0, 255).byte()


def random_crops(
    images: Tensor, count: int, extent: tuple[int, int], chances: torch.Generator
) -> Tensor:
    """[n, C, H, W] -> [count, C, *extent]; an image may come twice."""
    chosen = torch.randint(len(images), (count,), generator=chances).tolist()
    height, width = extent
    tops, lefts = (
        torch.randint(have - want + 1, (count,), generator=chances).tolist()
        for have, want in zip(images.shape[2:], extent, strict=True)
    )
    return torch.stack(
        [
            images[i, :, top : top + height, left : left + width]
            for i, top, left in zip(chosen, tops, lefts, strict=True)
        ]
    )


def extent_of_crops(images: Tensor, crop: int) -> tuple[int, int]:
    """Height and width of pieces of at most `crop` pixels of [n, C, H, W]; 0: whole images."""
    height, width = images.shape[2:]
    crop = crop or max(height, width)
    return min(crop, height), min(crop, width)
