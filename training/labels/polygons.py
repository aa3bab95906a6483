"""Polygons, circles and COCO run lengths -> masks.

Coordinates are pixels from the top left corner of the first pixel. pycocotools rasterizes polygons.
Run lengths alternate between outside and inside, column by column: the 3x2 mask

    0 1
    0 1      is [3, 2, 1]: three outside, two inside, one outside.
    0 0
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.errors import LabelError
from training.labels.scaling import LabelSizes

MAX_COORDINATE = 1e6  # pixels


def mask_from_polygons(
    path: Path, polygons: Sequence[Sequence[float]], size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    """Union of polygons [x0, y0, x1, y1, ...], drawn at the label's (height, width) -> bool [H, W]
    at the crop's. Raises LabelError."""
    scale = np.array(sizes.scale(path, size))
    scaled = []
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64)
        if points.size < 6 or points.size % 2:
            raise LabelError(f"{path} has an outline of {points.size} numbers; it needs 3 points")
        if not np.abs(points).max() <= MAX_COORDINATE:
            raise LabelError(f"{path} has an outline with coordinates past {MAX_COORDINATE:.0f}")
        scaled.append((points.reshape(-1, 2) * scale).ravel().tolist())
    mask = np.zeros((sizes.height, sizes.width), bool)
    for run_lengths in coco_mask.frPyObjects(scaled, sizes.height, sizes.width):
        counts = counts_from_text(run_lengths["counts"].decode())
        mask |= mask_from_counts(path, counts, (sizes.height, sizes.width))
    return mask


def polygon_from_circle(
    center: Sequence[float], edge: Sequence[float], corners: int = 64
) -> list[float]:
    """Polygon [x0, y0, x1, y1, ...] of the circle around `center` through the point `edge`."""
    radius = np.hypot(edge[0] - center[0], edge[1] - center[1])
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], 1)
    return [float(value) for value in points.ravel()]


def mask_from_parts(
    parts: Sequence[tuple[int, NDArray[np.bool_]]], sizes: LabelSizes
) -> NDArray[np.uint8]:
    """Paints (class id, region) pairs in order, later over earlier, on background 0 -> uint8 [H, W]
    at the crop's size."""
    mask = np.zeros((sizes.height, sizes.width), np.uint8)
    for class_id, region in parts:
        mask[region] = class_id
    return mask


def counts_from_text(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    Each character is 48 plus six bits: five bits of a number, low bits first, and a bit (32) that
    is set if more follow. From the fourth number on, each is the difference to the one two before.
    Decoded here because the C code of pycocotools does not check the text.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # sign
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def mask_from_counts(path: Path, counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Run lengths of a mask of (height, width) -> bool [height, width]. Raises LabelError."""
    height, width = size
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise LabelError(f"{path} has run lengths that do not add up to {width}x{height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
