"""Strokes of a round brush over pixels that have a wrong class.

The brush stays where its class is right, so it never spoils a neighbor. The size is the one that
repairs most for its price; what it cannot reach is left for a smaller one.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
DIAMETERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)  # pixels
EIGHT = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@dataclass(frozen=True)
class Strokes:
    """What some strokes paint, and what they take."""

    painted: Mask  # [H, W]
    count: int
    length_px: float  # of all together; 0: dabs


def best_strokes(wrong: Mask, free: Mask, unit_px: float) -> Strokes:
    """Strokes over `wrong` pixels [H, W] within `free` ones, of the size that repairs most for its
    price: 1 for each stroke and 1 for each `unit_px` of length."""
    found: list[tuple[float, Strokes]] = []
    for diameter in DIAMETERS:
        strokes = strokes_of_size(wrong, free, diameter)
        if strokes is None:
            break  # nor does a larger brush fit
        price = strokes.count + strokes.length_px / unit_px
        found.append(((strokes.painted & wrong).sum() / price, strokes))
    return max(found, key=lambda pair: pair[0])[1]


def strokes_of_size(wrong: Mask, free: Mask, diameter: int) -> Strokes | None:
    """Strokes of one brush over all that it can reach; None if it does not fit anywhere."""
    disc = disc_of_diameter(diameter)
    centers = ndimage.binary_erosion(free, disc, border_value=1)
    todo = wrong & ndimage.binary_dilation(centers, disc)
    if not todo.any():
        return None
    painted = np.zeros_like(wrong)
    parts, _ = ndimage.label(centers, np.ones((3, 3)))
    count, length = 0, 0.0
    while todo.any():
        # A stroke begins where it repairs most, then goes to the nearest place that still needs it.
        gain = _gain(todo, centers, disc)
        at = tuple(int(i) for i in np.unravel_index(int(gain.argmax()), gain.shape))
        way = centers & (parts == parts[at])
        count += 1
        path: list[tuple[int, int]] = [(at[0], at[1])]
        while path:
            for step in path:
                _dab(painted, step, disc)
            length += sum(float(np.hypot(a[0] - b[0], a[1] - b[1])) for a, b in pairwise(path))
            todo &= ~painted
            path = _path_to_gain(path[-1], way, _gain(todo, centers, disc))
    return Strokes(painted, count, length)


def disc_of_diameter(diameter: int) -> Mask:
    """Pixels whose centers lie within the brush around the center of a pixel, as the studio paints
    them."""
    reach = diameter // 2
    offsets = np.arange(-reach, reach + 1)
    inside: Mask = np.square(offsets)[:, None] + np.square(offsets) <= (diameter / 2) ** 2
    return inside


def _gain(todo: Mask, centers: Mask, disc: Mask) -> NDArray[np.float64]:
    """Pixels that a dab at each center repairs."""
    counts = ndimage.convolve(todo.astype(np.float64), disc.astype(np.float64), mode="constant")
    return np.where(centers, np.rint(counts), 0)


def _dab(painted: Mask, center: tuple[int, int], disc: Mask) -> None:
    reach = disc.shape[0] // 2
    top, left = max(0, center[0] - reach), max(0, center[1] - reach)
    view = painted[top : center[0] + reach + 1, left : center[1] + reach + 1]
    first_row, first_column = top - center[0] + reach, left - center[1] + reach
    view |= disc[first_row : first_row + view.shape[0], first_column : first_column + view.shape[1]]


def _path_to_gain(
    start: tuple[int, int], way: Mask, gain: NDArray[np.float64]
) -> list[tuple[int, int]]:
    """The shortest path within `way` to a pixel with gain; empty if there is none."""
    if not gain[way].any():
        return []
    before: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        at = queue.popleft()
        if gain[at] > 0 and at != start:
            path: list[tuple[int, int]] = []
            step: tuple[int, int] | None = at
            while step is not None:
                path.append(step)
                step = before[step]
            return path[::-1]
        for dy, dx in EIGHT:
            near = (at[0] + dy, at[1] + dx)
            inside = 0 <= near[0] < way.shape[0] and 0 <= near[1] < way.shape[1]
            if inside and way[near] and near not in before:
                before[near] = at
                queue.append(near)
    return []
