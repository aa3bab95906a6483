"""A mask -> closed polygons along the edges of its pixels, for formats that have no masks.

Coordinates are pixels from the top left, a twentieth of a pixel inside of the edges: a rasterizer
that fills what lies inside gives the mask again, and so does one that cuts coordinates off to whole
pixels and fills the border, too, as OpenCV does for Ultralytics. Parts that touch at a corner alone
are two polygons. A hole is joined to the outline around it by a cut of no width:

    +-----------+
    |   +---+   |
    |---|   |   |      the cut goes in along the line and out along it
    |   +---+   |
    +-----------+
"""

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]  # x, y
Place = tuple[float, float]
INSET = 0.05  # pixels


def outlines_from_mask(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """bool [H, W] -> polygons [n, 2] of x, y in pixels, whose union is the mask."""
    loops = [_without_straight_corners(loop) for loop in _loops(mask)]
    outer = [_inset(loop) for loop in loops if _area(loop) > 0]
    holes = [_inset(loop) for loop in loops if _area(loop) < 0]
    for hole in sorted(holes, key=min):
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
        first = follows[start][0]
        loop, came, at = [start], start, first
        while True:
            ways = follows[at]
            # Where two parts touch at a corner, turn right, so that they stay two.
            way = max(ways, key=lambda to: _turn(came, at, to)) if len(ways) > 1 else ways[0]
            ways.remove(way)
            if not ways:
                del follows[at]
            if (at, way) == (start, first):
                break
            loop.append(at)
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


def _inset(loop: list[Corner]) -> list[Place]:
    """Moves every edge into the mask, which is on its right; edges go across and down in turns."""
    places = []
    for i, (x, y) in enumerate(loop):
        before, after = loop[i - 1], loop[(i + 1) % len(loop)]
        dx = after[0] - x or x - before[0]  # of the edge that goes across
        dy = after[1] - y or y - before[1]
        places.append((x + (INSET if dy < 0 else -INSET), y + (INSET if dx > 0 else -INSET)))
    return places


def _join(outer: list[list[Place]], hole: list[Place]) -> None:
    """Cuts from the left side of the hole, in its first row, to the next edge on the left; holes
    further left are joined already."""
    start = hole.index(min(hole))
    x, row = hole[start][0], round(hole[start][1]) + 0.5
    best: tuple[float, int, int] | None = None  # x of the edge, outline, position of its start
    for number, loop in enumerate(outer):
        for i, (x0, y0) in enumerate(loop):
            x1, y1 = loop[(i + 1) % len(loop)]
            # The mask is right of an edge, so that one with the mask on its right side goes up.
            crossed = x0 == x1 and y1 < row < y0
            if crossed and x0 < x and (best is None or x0 > best[0]):
                best = (x0, number, i)
    assert best is not None  # a hole lies within an outline
    edge, number, i = best
    cut, side = (edge, row), (x, row)
    around = [cut, side, *hole[start + 1 :], *hole[: start + 1], side, cut]
    outer[number][i + 1 : i + 1] = around
