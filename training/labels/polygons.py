"""Polygons, circles and COCO's run lengths -> masks.

Coordinates count from the corner of the first pixel; pycocotools fills the polygons. Run lengths
alternate between outside and inside, down the columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.errors import LabelError
from training.labels.scaling import Extents

LARGEST = 1e6  # of a coordinate, in pixels


def filled(
    path: Path, polygons: Sequence[Sequence[float]], size: tuple[int, int], extents: Extents
) -> NDArray[np.bool_]:
    """Polygons x0, y0, x1, y1 ... at a label's (width, height) -> bool [H, W] at the crop's."""
    scale = np.array(extents.scale(path, *size))
    scaled = []
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64)
        if points.size < 6 or points.size % 2:
            raise LabelError(f"{path} has an outline of {points.size} numbers; it needs 3 points")
        if not np.abs(points).max() <= LARGEST:
            raise LabelError(f"{path} has an outline with coordinates past {LARGEST:.0f}")
        scaled.append((points.reshape(-1, 2) * scale).ravel().tolist())
    mask = np.zeros((extents.height, extents.width), bool)
    for run_lengths in coco_mask.frPyObjects(scaled, extents.height, extents.width):
        counts = counts_from_text(run_lengths["counts"].decode())
        mask |= mask_from_counts(path, counts, (extents.width, extents.height))
    return mask


def circle(centre: Sequence[float], edge: Sequence[float], corners: int = 64) -> list[float]:
    """A circle by its centre and a point on it, as a polygon."""
    radius = np.hypot(edge[0] - centre[0], edge[1] - centre[1])
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)
    return [float(value) for value in points.ravel()]


def painted(parts: Sequence[tuple[int, NDArray[np.bool_]]], extents: Extents) -> NDArray[np.uint8]:
    """Parts by class id, each over those before it, on background 0 -> uint8 [H, W]."""
    mask = np.zeros((extents.height, extents.width), np.uint8)
    for class_id, where in parts:
        mask[where] = class_id
    return mask


def counts_from_text(text: str) -> list[int]:
    """Compressed run lengths: five bits a character, from the third on differences.

    Read here and not by pycocotools, whose C code trusts the text.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def mask_from_counts(path: Path, counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Runs of a mask of (width, height) -> bool [height, width]. Raises LabelError."""
    width, height = size
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise LabelError(f"{path} has run lengths that do not add up to {width}x{height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
