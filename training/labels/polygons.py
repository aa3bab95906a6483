"""Polygons, circles and COCO run lengths -> masks.

Coordinates are pixels from the top left corner of the first pixel. pycocotools rasterizes polygons.
Run lengths alternate between outside and inside, column by column: the 3x2 mask

    0 1
    0 1      is [3, 2, 1]: three outside, two inside, one outside.
    0 0
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.errors import LabelError
from training.labels.scaling import LabelSizes

MAX_COORDINATE = 1e6  # pixels
MAX_COUNT_CHARACTERS = 8  # of a compressed run length, five bits each
MAX_LENGTH = 1e7  # pixels around a polygon: pycocotools stores every one of them


def mask_from_polygons(
    origin: object, polygons: Sequence[Sequence[float]], size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    """Union of polygons [x0, y0, x1, y1, ...], drawn at the label's (height, width) -> bool [H, W]
    at the crop's. Raises LabelError."""
    scale = np.array(sizes.scale(origin, size))
    scaled = []
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64)
        if points.size < 6 or points.size % 2:
            raise LabelError(f"{origin} has an outline of {points.size} numbers; it needs 3 points")
        if not np.abs(points).max() <= MAX_COORDINATE:
            raise LabelError(f"{origin} has an outline with coordinates past {MAX_COORDINATE:.0f}")
        corners = points.reshape(-1, 2) * scale
        if np.abs(np.diff(corners, axis=0)).sum() > MAX_LENGTH:
            raise LabelError(f"{origin} has an outline longer than {MAX_LENGTH:.0f} pixels")
        scaled.append(corners.ravel().tolist())
    union = coco_mask.merge(coco_mask.frPyObjects(scaled, sizes.height, sizes.width))
    # Not by coco_mask.decode, which warns with numpy 2.
    text = union["counts"]
    counts = counts_from_text(text.decode() if isinstance(text, bytes) else text)
    return mask_from_counts(origin, counts, (sizes.height, sizes.width))


def polygon_from_box(
    left: float,
    top: float,
    width: float,
    height: float,
    rotation_deg: float = 0,
    pivot: Sequence[float] | None = None,
) -> list[float]:
    """Polygon [x0, y0, x1, y1, ...] of a box, turned clockwise around the pivot, which is its top
    left corner unless given."""
    pivot = (left, top) if pivot is None else pivot
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    offset = np.array([left - pivot[0], top - pivot[1]])
    return _placed(corners + offset, rotation_deg, pivot)


def polygon_from_ellipse(
    center: Sequence[float], radii: Sequence[float], rotation_deg: float = 0, corners: int = 128
) -> list[float]:
    """Polygon [x0, y0, x1, y1, ...] of an ellipse with radii along x and y, turned clockwise around
    its center."""
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([radii[0] * np.cos(angle), radii[1] * np.sin(angle)], 1)
    return _placed(points, rotation_deg, center)


def _placed(points: NDArray[np.float64], degrees: float, origin: Sequence[float]) -> list[float]:
    """Points [n, 2] turned clockwise, as y points down, and moved to the origin, in one list."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    placed = points @ np.array([[cos, sin], [-sin, cos]]) + np.array(origin)
    return [float(value) for value in placed.ravel()]


def counts_from_text(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    Each character is 48 plus six bits: five bits of a number, low bits first, and a bit (32) that
    is set if more follow. From the fourth number on, each is the difference to the one two before.
    Decoded here because the C code of pycocotools does not check the text. A number of more than
    40 bits becomes -1, which no mask has.
    """
    bits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(ends):
        return []
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_COUNT_CHARACTERS:
        return [-1]
    place = np.arange(ends[-1] + 1) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits[: ends[-1] + 1] & 31) << 5 * place, starts)
    values -= np.where(bits[ends] & 16, 1 << 5 * lengths, 0)  # sign
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    counts: list[int] = values.tolist()
    return counts


def mask_from_counts(origin: object, counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Run lengths by columns of a mask of (height, width) -> bool [height, width].

    Raises LabelError.
    """
    height, width = size
    return mask_from_runs(origin, counts, (width, height)).T


def mask_from_runs(origin: object, counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Run lengths by rows of a mask of (height, width) -> bool [height, width].

    Raises LabelError.
    """
    height, width = size
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise LabelError(f"{origin} has run lengths that do not add up to {height * width} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(height, width)
