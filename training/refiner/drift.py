"""Did refining move anything? Measured on the images alone, by matching tiles of both.

Brightness, colour and contrast may change: tiles are compared by correlation. Only tiles with
corners in them are asked, because along an edge or on a flat wall any shift matches.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3  # pixels of shift that are tried, either way
TILE, STRIDE = 16, 8  # pixels
FOUND = 0.8  # correlation from which a tile is taken for the same
BLANK = 1e-6  # variance of brightness in [0, 1]: under a byte, what is there is rounding
ASKED = 0.25  # share of all tiles, those with the clearest corners


@dataclass(frozen=True)
class Drift:
    """How well refined images lie on their originals."""

    shift_px: float  # mean length of the tiles' shifts, of those that are found; inf: none is
    structure: float  # mean correlation of the tiles where they are, 1: the same up to contrast
    agreement: float | None = None  # mIoU between a segmenter's views of both; None: no segmenter


def drift_between(original: Tensor, refined: Tensor) -> Drift:
    """Compares uint8 [n, C, H, W] with uint8 [n, C, H, W]; H and W are at least 24."""
    before, after = (_smoothed(images) for images in (original, refined))
    chosen = _cornered(before)
    maps = torch.stack(
        [
            torch.stack([_correlation(before, after, dy, dx)[chosen] for dx in _range()], dim=1)
            for dy in _range()
        ],
        dim=1,
    )  # [tiles, dy, dx]
    found = maps.flatten(1).amax(dim=1) >= FOUND
    lengths = _shifts(maps).norm(dim=1)[found]
    return Drift(
        shift_px=lengths.mean().item() if len(lengths) else math.inf,
        structure=maps[:, RADIUS, RADIUS].mean().item(),
    )


def _range() -> range:
    return range(-RADIUS, RADIUS + 1)


def _smoothed(images: Tensor) -> Tensor:
    """Brightness in [0, 1], [n, 1, H, W], with the noise of single pixels averaged out."""
    return F.avg_pool2d(images.float().mean(dim=1, keepdim=True) / 255, 3, stride=1)


def _tiles(values: Tensor) -> Tensor:  # means over tiles, [n, 1, rows, columns]
    return F.avg_pool2d(values, TILE, STRIDE)


def _inner(images: Tensor, dy: int = 0, dx: int = 0) -> Tensor:
    """Without a margin of RADIUS, so that every shift stays inside."""
    height, width = images.shape[2:]
    return images[:, :, RADIUS + dy : height - RADIUS + dy, RADIUS + dx : width - RADIUS + dx]


def _cornered(before: Tensor) -> Tensor:
    """bool [n, 1, rows, columns]: where the weaker of the two directions of change is strongest
    (Shi and Tomasi, Good features to track, CVPR 1994)."""
    inner = _inner(before)
    dx = F.pad(inner.diff(dim=3), (0, 1))
    dy = F.pad(inner.diff(dim=2), (0, 0, 0, 1))
    xx, yy, xy = _tiles(dx * dx), _tiles(dy * dy), _tiles(dx * dy)
    weaker = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    return weaker >= weaker.flatten().quantile(1 - ASKED)


def _correlation(before: Tensor, after: Tensor, dy: int, dx: int) -> Tensor:
    """Of every tile with the one that lies dy, dx further in the other, [n, 1, rows, columns]."""
    a, b = _inner(before), _inner(after, dy, dx)
    mean_a, mean_b = _tiles(a), _tiles(b)
    covariance = _tiles(a * b) - mean_a * mean_b
    variance_a = (_tiles(a * a) - mean_a**2).clamp(min=BLANK)
    variance_b = (_tiles(b * b) - mean_b**2).clamp(min=BLANK)
    return covariance / (variance_a * variance_b).sqrt()


def _shifts(maps: Tensor) -> Tensor:
    """Where correlations [tiles, dy, dx] peak, to a fraction of a pixel: float32 [tiles, 2]."""
    extent = maps.shape[2]
    peak = maps.flatten(1).argmax(dim=1)
    row, column = peak // extent, peak % extent
    tile = torch.arange(len(maps))

    def refined(place: Tensor, line: Tensor) -> Tensor:
        """The top of the parabola through the peak and its neighbours on a line [tiles, extent]."""
        low, top, high = (line[tile, (place + step).clamp(0, extent - 1)] for step in (-1, 0, 1))
        bend = (2 * top - low - high).clamp(min=1e-6)
        return place + ((high - low) / (2 * bend)).clamp(-0.5, 0.5) - RADIUS

    return torch.stack([refined(row, maps[tile, :, column]), refined(column, maps[tile, row])], 1)
