"""Outlines -> masks, by pycocotools; coordinates count from the corner of the first pixel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.errors import LabelError
from training.labels.runs import counts_from_text, mask_from_counts
from training.labels.scaling import Extents

LARGEST = 1e6  # of a coordinate, in pixels


def filled(
    path: Path, polygons: Sequence[Sequence[float]], size: tuple[int, int], extents: Extents
) -> NDArray[np.bool_]:
    """Polygons x0, y0, x1, y1 ... at a label's (width, height) -> bool [H, W] at the frame's."""
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
