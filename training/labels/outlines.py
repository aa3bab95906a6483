"""A mask -> closed polygons along the edges of its pixels, for formats that have no masks.

Corners are whole numbers of pixels from the top left. Parts that touch at a corner alone are two
polygons. A hole is joined to the outline around it by a cut of no width:

    +-----------+
    |   +---+   |
    |---|   |   |      the cut goes in along the line and out along it
    |   +---+   |
    +-----------+
"""

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]  # x, y


def outlines_from_mask(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """bool [H, W] -> polygons [n, 2] of x, y in pixels, whose union is the mask."""
    loops = [_without_straight_corners(loop) for loop in _loops(mask)]
    outer = [loop for loop in loops if _area(loop) > 0]
    for hole in sorted((loop for loop in loops if _area(loop) < 0), key=_leftmost):
        _join(outer, hole)
    return [np.array(loop, np.float64) for loop in outer]


def _loops(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """Closed paths with the mask on their right: clockwise around parts, counterclockwise in
    holes."""
    inside = np.pad(mask, 1)
    follows: dict[Corner, list[Corner]] = {}
    # An edge lies between a pixel inside and one outside; its direction keeps the inside right.
    for dy, dx, start, end in (
        (-1, 0, (0, 0), (1, 0)),  # top edge, to the right
        (0, 1, (1, 0), (1, 1)),  # right edge, down
        (1, 0, (1, 1), (0, 1)),  # bottom edge, to the left
        (0, -1, (0, 1), (0, 0)),  # left edge, up
    ):
        beside = np.roll(inside, (-dy, -dx), (0, 1))
        for row, column in np.argwhere(inside & ~beside).tolist():
            x, y = column - 1, row - 1
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while follows:
        start = next(iter(follows))
        loop, at, came = [start], follows[start].pop(), start
        if not follows[start]:
            del follows[start]
        while at != start:
            loop.append(at)
            ways = follows[at]
            # Where two parts touch at a corner, turn right, so that they stay two.
            way = max(ways, key=lambda to: _turn(came, at, to)) if len(ways) > 1 else ways[0]
            ways.remove(way)
            if not ways:
                del follows[at]
            came, at = at, way
        loops.append(loop)
    return loops


def _turn(first: Corner, second: Corner, third: Corner) -> int:
    """Above 0 for a turn to the right, as y points down."""
    (ax, ay), (bx, by), (cx, cy) = first, second, third
    return (bx - ax) * (cy - by) - (by - ay) * (cx - bx)


def _without_straight_corners(loop: list[Corner]) -> list[Corner]:
    count = len(loop)
    return [
        corner
        for i, corner in enumerate(loop)
        if _turn(loop[i - 1], corner, loop[(i + 1) % count]) != 0
    ]


def _area(loop: list[Corner]) -> float:
    points = np.array(loop, np.float64)
    x, y = points.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _leftmost(loop: list[Corner]) -> Corner:
    return min(loop)


def _join(outer: list[list[Corner]], hole: list[Corner]) -> None:
    """Cuts from the leftmost corner of the hole to the left, up to the first edge that it meets;
    holes further left are joined already."""
    x, y = _leftmost(hole)
    best: tuple[int, int, int] | None = None  # x of the edge, outline, position of its start
    for number, loop in enumerate(outer):
        for i, (x0, y0) in enumerate(loop):
            x1, y1 = loop[(i + 1) % len(loop)]
            # The mask is right of an edge, so that one with the mask on its right side goes up.
            crossed = x0 == x1 and y1 < y0 and y1 <= y <= y0
            if crossed and x0 < x and (best is None or x0 > best[0]):
                best = (x0, number, i)
    assert best is not None  # a hole lies within an outline
    edge, number, i = best
    start = hole.index((x, y))
    cut = (edge, y)
    around = [cut, *hole[start:], *hole[:start], (x, y), cut]
    outer[number][i + 1 : i + 1] = around
