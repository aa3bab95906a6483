"""Smart select against its definition, spelled out level by level."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from studio.select import (
    LEVELS,
    OUTSIDE,
    Point,
    Selection,
    selection,
    table_from_values,
    thresholds_of,
)

SIDE = 40


def defined_selection(
    values: NDArray[np.float64], seeds: list[Point], other: NDArray[np.bool_]
) -> Selection:
    """The regions of all levels, searched one by one in the whole image, and every pair of
    neighbors on their outlines."""

    def nearest(points: NDArray[np.float64]) -> NDArray[np.float64]:
        away = np.linalg.norm(values[:, :, None] - points, axis=3).min(axis=2)
        return np.asarray(away, np.float64)

    rows, columns = [y for _, y in seeds], [x for x, _ in seeds]
    distance = nearest(values[rows, columns])
    if other.any():
        distance /= distance + nearest(values[other]) + 1e-6
    distance[other] = np.inf
    limits = thresholds_of(distance[~other].astype(np.float32))
    levels = np.full(other.shape, OUTSIDE, np.uint8)
    scores: list[float] = []
    for k, limit in reversed(list(enumerate(limits))):
        parts, _ = ndimage.label(distance.astype(np.float32) <= limit)
        region = np.isin(parts, [p for p in parts[rows, columns] if p])
        levels[region] = k
        steps = [
            np.linalg.norm(np.diff(values, axis=axis), axis=2)[np.diff(region, axis=axis)]
            for axis in (0, 1)
        ]
        step = np.concatenate(steps).mean() if np.concatenate(steps).size else 0.0
        usable = 3 <= region.sum() <= 0.85 * region.size
        scores.insert(0, step * region.sum() ** 0.04 if usable else -1)
    return Selection(levels, int(np.argmax(scores)))


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("painted", [0, 90])
def test_a_selection_is_what_joins_the_clicks_at_each_level(count: int, painted: int) -> None:
    rng = np.random.default_rng(count + painted)
    noise = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE, 6)), (2, 2, 0))
    values = np.rint(40 * noise)  # small integers: no rounding, in whatever order they are added
    other = np.zeros((SIDE, SIDE), bool)
    other.ravel()[rng.choice(SIDE * 12, painted, replace=False)] = True
    seeds = [(3 + 5 * i, 20 + i % 2 * 9) for i in range(count)]
    found = selection(table_from_values(values.astype(np.float16)), seeds, other, np.inf)
    expected = defined_selection(values, seeds, other)
    assert (found.levels == expected.levels).all()
    assert found.proposed == expected.proposed
    assert set(np.unique(found.levels[~other])) > {0, LEVELS - 1}, "both ends are seen"
