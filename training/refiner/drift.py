"""Original and refined images -> how far refining moved things, from the images alone.

Tiles of the original are compared with the refined image at shifts of up to 3 px in x and y. The
comparison is a correlation, so brightness, color and contrast may change. Only tiles with clear
corners are used: along an edge or on a flat wall every shift matches.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SHIFT = 3  # largest shift that is tried, pixels
TILE, STRIDE = 16, 8  # pixels
MATCH = 0.8  # correlation from which a tile counts as found
MIN_VARIANCE = 1e-6  # variance of brightness in [0, 1]; less is the rounding of bytes
CORNER_SHARE = 0.25  # share of all tiles that is used, those with the clearest corners


@dataclass(frozen=True)
class Drift:
    """How well refined images lie on their originals."""

    shift_px: float  # mean length of the shifts of the tiles that are found; inf: none is found
    structure: float  # mean correlation of tiles without a shift; 1: equal up to contrast
    agreement: float | None = None  # mIoU of a segmenter's masks of both; None: no segmenter


def drift_between(original: Tensor, refined: Tensor) -> Drift:
    """Compares two uint8 [n, C, H, W]; H and W are at least 24."""
    before, after = (_smoothed(images) for images in (original, refined))
    chosen = _has_corner(before)
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1)
    correlations = torch.stack(
        [
            torch.stack([_correlation(before, after, dy, dx)[chosen] for dx in shifts], dim=1)
            for dy in shifts
        ],
        dim=1,
    )  # [tiles, dy, dx]
    found = correlations.flatten(1).amax(dim=1) >= MATCH
    lengths = _best_shifts(correlations).norm(dim=1)[found]
    return Drift(
        shift_px=lengths.mean().item() if len(lengths) else math.inf,
        structure=correlations[:, MAX_SHIFT, MAX_SHIFT].mean().item(),
    )


def text_from_drift(drift: Drift) -> str:
    """The figures, for the console."""
    text = f"moved {drift.shift_px:.2f} px, structure {drift.structure:.3f}"
    return text if drift.agreement is None else f"{text}, agreement {drift.agreement:.3f}"


def _smoothed(images: Tensor) -> Tensor:
    """Brightness in [0, 1], mean over 3x3 pixels against noise, [n, 1, H - 2, W - 2]."""
    return F.avg_pool2d(images.float().mean(dim=1, keepdim=True) / 255, 3, stride=1)


def _tile_means(values: Tensor) -> Tensor:
    """[n, 1, H, W] -> [n, 1, rows, columns] of tiles."""
    return F.avg_pool2d(values, TILE, STRIDE)


def _inner(images: Tensor, dy: int = 0, dx: int = 0) -> Tensor:
    """The image without a margin of MAX_SHIFT, so that a window shifted by dy, dx fits in."""
    height, width = images.shape[2:]
    return images[
        :, :, MAX_SHIFT + dy : height - MAX_SHIFT + dy, MAX_SHIFT + dx : width - MAX_SHIFT + dx
    ]


def _has_corner(before: Tensor) -> Tensor:
    """Tiles with the clearest corners, bool [n, 1, rows, columns].

    The measure is the smaller eigenvalue of the tile's structure tensor: brightness changes in
    both directions (Shi and Tomasi, Good features to track, CVPR 1994).
    """
    inner = _inner(before)
    dx = F.pad(inner.diff(dim=3), (0, 1))
    dy = F.pad(inner.diff(dim=2), (0, 0, 0, 1))
    xx, yy, xy = _tile_means(dx * dx), _tile_means(dy * dy), _tile_means(dx * dy)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    return smaller >= smaller.flatten().quantile(1 - CORNER_SHARE)


def _correlation(before: Tensor, after: Tensor, dy: int, dx: int) -> Tensor:
    """Correlation of each tile with the one at an offset of dy, dx in the other image,
    [n, 1, rows, columns]."""
    a, b = _inner(before), _inner(after, dy, dx)
    mean_a, mean_b = _tile_means(a), _tile_means(b)
    covariance = _tile_means(a * b) - mean_a * mean_b
    variance_a = (_tile_means(a * a) - mean_a**2).clamp(min=MIN_VARIANCE)
    variance_b = (_tile_means(b * b) - mean_b**2).clamp(min=MIN_VARIANCE)
    return covariance / (variance_a * variance_b).sqrt()


def _best_shifts(correlations: Tensor) -> Tensor:
    """Shift (dy, dx) at the peak of correlations [tiles, dy, dx], to a fraction of a pixel,
    float32 [tiles, 2]."""
    extent = correlations.shape[2]
    peak = correlations.flatten(1).argmax(dim=1)
    row, column = peak // extent, peak % extent
    tile = torch.arange(len(correlations))

    def subpixel(place: Tensor, line: Tensor) -> Tensor:
        """Vertex of the parabola through the peak and its two neighbors on a line
        [tiles, extent]."""
        low, top, high = (line[tile, (place + step).clamp(0, extent - 1)] for step in (-1, 0, 1))
        bend = (2 * top - low - high).clamp(min=1e-6)
        return place + ((high - low) / (2 * bend)).clamp(-0.5, 0.5) - MAX_SHIFT

    dy = subpixel(row, correlations[tile, :, column])
    dx = subpixel(column, correlations[tile, row])
    return torch.stack([dy, dx], 1)
