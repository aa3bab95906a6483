"""Regions of a mask as polygons, as a person draws them: pixels -> corners -> pixels.

Corners are (x, y) in pixels from the mask's upper left corner, so pixel (row, column) covers
[column, column + 1] x [row, row + 1]. An outline runs through the middles of pixel edges, where a
person would draw it, and not along the stairs of the pixels.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Corner = tuple[float, float]


def outline_of_region(region: Mask) -> list[Corner]:
    """Middles of the pixel edges around a region [H, W] that is 4-connected, without holes."""
    edges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    padded = np.pad(region, 1)
    for row, column in np.argwhere(region).tolist():
        r, c = row + 1, column + 1
        # Clockwise, the region on the right.
        if not padded[r - 1, c]:
            edges[column, row].append((column + 1, row))
        if not padded[r, c + 1]:
            edges[column + 1, row].append((column + 1, row + 1))
        if not padded[r + 1, c]:
            edges[column + 1, row + 1].append((column, row + 1))
        if not padded[r, c - 1]:
            edges[column, row + 1].append((column, row))
    start = min(edges, key=lambda corner: (corner[1], corner[0]))
    at, heading = start, (1, 0)
    corners: list[Corner] = []
    while True:
        ways = edges[at]
        right = (at[0] - heading[1], at[1] + heading[0])  # where two pixels touch: stay at this one
        step = right if right in ways else ways[0]
        ways.remove(step)
        corners.append(((at[0] + step[0]) / 2, (at[1] + step[1]) / 2))
        heading = (step[0] - at[0], step[1] - at[1])
        at = step
        if at == start:
            return corners


def simplified(corners: list[Corner], tolerance_px: float) -> list[Corner]:
    """Fewer corners of a closed outline, which stays within the tolerance (Douglas and Peucker,
    1973). At least three are left of an outline that has an area."""
    points = np.array(corners, np.float64)
    first = int(np.square(points - points.mean(axis=0)).sum(axis=1).argmax())
    points = np.roll(points, -first, axis=0)
    middle = int(np.square(points - points[0]).sum(axis=1).argmax())
    closed = np.concatenate([points, points[:1]])
    kept = {0, middle} | _kept(closed, 0, middle, tolerance_px)
    kept |= _kept(closed, middle, len(points), tolerance_px)
    if len(kept) < 3:
        return simplified(corners, tolerance_px / 2)
    return [(float(x), float(y)) for x, y in points[sorted(kept)]]


def _kept(points: NDArray[np.float64], first: int, last: int, tolerance: float) -> set[int]:
    """Places between first and last that the line between these two is too far from."""
    if last - first < 2:
        return set()
    start, line = points[first], points[last] - points[first]
    away = points[first + 1 : last] - start
    squared = float(line @ line)
    along = np.clip(away @ line / squared, 0, 1) if squared else np.zeros(len(away))
    distance = np.linalg.norm(away - along[:, None] * line, axis=1)
    farthest = int(distance.argmax())
    if distance[farthest] <= tolerance:
        return set()
    middle = first + 1 + farthest
    return (
        {middle} | _kept(points, first, middle, tolerance) | _kept(points, middle, last, tolerance)
    )


def polygon_pixels(corners: list[Corner], size: tuple[int, int]) -> Mask:
    """Pixels [H, W] whose centers lie within a polygon (even-odd), as the studio fills it."""
    inside = np.zeros(size, bool)
    around = list(zip(corners, corners[1:] + corners[:1], strict=True))
    for row in range(size[0]):
        y = row + 0.5
        crossings = sorted(
            x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            for (x0, y0), (x1, y1) in around
            if (y0 <= y) != (y1 <= y)
        )
        for start, end in zip(crossings[::2], crossings[1::2], strict=True):
            inside[row, max(0, int(np.ceil(start - 0.5))) : int(np.ceil(end - 0.5))] = True
    return inside
