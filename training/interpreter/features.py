"""Feature maps (taps) of labeled images, stored at their own resolution -> features of pixels.

The hypercolumn of one image at 512 px takes 5 to 6 GB. Its taps take 0.16 GB in half precision, and
less if only the pixels that training will draw are stored.
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
    """All taps of one resolution, with the channels of a pixel next to each other in memory.

    Without a mask, row p of `values` is pixel p of the flattened images. With one, rows are the
    masked pixels only, and `position` maps a pixel to its row:

        mask      1  0  0  1  1
        position  0 -1 -1  1  2
    """

    size: tuple[int, int]  # rows and columns, h and w
    values: Tensor  # [n * h * w, C], or [masked pixels, C]
    position: Tensor | None = None  # int32 [n * h * w]; None: without a mask

    def at(self, pixels: Tensor) -> Tensor:
        """Values [P, C] of flattened pixels int64 [P], in float32 or wider."""
        rows = pixels if self.position is None else self.position[pixels]
        values = self.values[rows]
        return values.float() if values.dtype == torch.float16 else values


class PixelFeatures:
    """Features of any stored pixel of n images, equal to those of `nets.features.hypercolumn`."""

    def __init__(self, levels: list[Level], crop: LabelCrop, resize: Resize) -> None:
        self.levels = levels
        self.crop = crop
        self.resize = resize
        self.features = sum(level.values.shape[1] for level in levels)  # D

    def gather(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Features of pixels of the crop, each argument int64 [P] -> float32 or float64 [P, D]."""
        rows = rows + self.crop.crop_top
        return torch.cat([self._at_level(v, images, rows, columns) for v in self.levels], dim=1)

    def _at_level(self, level: Level, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        (h, w), (height, width) = level.size, self.crop.size
        start = images * h * w
        if self.resize == "nearest" or h == height:
            return level.at(start + rows * h // height * w + columns * w // width)
        y0, y1, y = source_pixels(rows, height, h)
        x0, x1, x = source_pixels(columns, width, w)
        total = torch.zeros(())
        for row, column, weight in (
            (y0, x0, (1 - y) * (1 - x)),
            (y0, x1, (1 - y) * x),
            (y1, x0, y * (1 - x)),
            (y1, x1, y * x),
        ):
            values = level.at(start + row * w + column)
            total = total + values * weight[:, None].to(values.dtype)
        return total


def source_pixels(positions: Tensor, grid: int, extent: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two source pixels of bilinear resizing from `extent` to `grid` along one axis.

    Grid positions int64 [P] -> first and second source pixel, int64 [P], and the weight of the
    second, float64 [P]. Pixel centers lie at +0.5, edges are replicated. From 4 to 8 pixels,
    position 1 has its center at 0.75 source pixels: it takes 0.75 of pixel 0 and 0.25 of pixel 1.
    """
    source = ((positions.double() + 0.5) * extent / grid - 0.5).clamp(min=0)
    first = source.long()
    return first, (first + 1).clamp(max=extent - 1), source - first


@torch.no_grad()
def features_from_ws(
    generator: Generator,
    ws: NDArray[np.float32],
    crop: LabelCrop,
    resize: Resize = "bilinear",
    storage: torch.dtype = torch.float16,
    mask: NDArray[np.bool_] | None = None,  # [n, H, W] of the crop; None: all pixels
) -> PixelFeatures:
    """Generates w+ [n, num_ws, w_dim], one image at a time, and stores the taps on its device.

    Taps larger than the grid are reduced to it, as in the served graph. At the grid's own
    resolution, only the pixels of `mask` are stored. The published code stores half precision too.
    Raises TrainingError when a tap exceeds the range of `storage`.
    """
    levels: list[Level] = []
    device = generator.mapping.w_avg.device
    masks = None if mask is None else [torch.from_numpy(_on_grid(m, crop)) for m in mask]
    for i, row in enumerate(tqdm(torch.from_numpy(ws).to(device), desc="taps", unit="image")):
        taps = [reduce_tap(t, crop.size) for t in generator.synthesis(row[None]).taps]
        groups = [list(group) for _, group in groupby(taps, key=lambda t: t.shape[-1])]
        if i == 0:
            levels = [_empty_level(len(ws), group, crop, storage, masks) for group in groups]
        for level, group in zip(levels, groups, strict=True):
            _store(level, i, group, masks)
    return PixelFeatures(levels, crop, resize)


def _empty_level(
    images: int,
    taps: list[Tensor],  # [1, C, h, w] each, all of one size
    crop: LabelCrop,
    storage: torch.dtype,
    masks: list[Tensor] | None,  # bool [pixels of the grid] of each image
) -> Level:
    """A level with room for the taps of all images."""
    h, w = taps[0].shape[2:]
    channels = sum(t.shape[1] for t in taps)
    if masks is None or (h, w) != crop.size:
        rows, position = images * h * w, None
    else:
        stored = torch.cat(masks)
        rows = int(stored.sum())
        position = torch.where(stored, stored.cumsum(0) - 1, -1).to(taps[0].device, torch.int32)
    return Level((h, w), taps[0].new_empty(rows, channels, dtype=storage), position)


def _store(level: Level, image: int, taps: list[Tensor], masks: list[Tensor] | None) -> None:
    """Copies the taps of one image into its rows of the level, one tap at a time to save memory."""
    pixels = level.size[0] * level.size[1]
    stored: Tensor | None = None  # pixels of the mask
    rows = level.values[image * pixels : (image + 1) * pixels]
    if level.position is not None and masks is not None:
        stored = masks[image].nonzero()[:, 0].to(taps[0].device)
        first = sum(int(m.sum()) for m in masks[:image])
        rows = level.values[first : first + len(stored)]
    channel = 0
    for tap in taps:
        part = rows[:, channel : channel + tap.shape[1]]
        by_pixel = tap[0].flatten(1).t()
        part.copy_(by_pixel if stored is None else by_pixel[stored])
        channel += tap.shape[1]
        if not torch.isfinite(part).all():
            raise TrainingError(
                f"a feature map of image {image} at {max(level.size)} px has values that are not "
                f"finite in {part.dtype}, up to {tap.abs().max():g}"
            )


def _on_grid(mask: NDArray[np.bool_], crop: LabelCrop) -> NDArray[np.bool_]:
    """Mask of the crop [H, W] -> mask of the flattened grid."""
    whole = np.zeros(crop.size, bool)
    whole[crop.crop_top : crop.crop_top + crop.height] = mask
    return whole.ravel()
