"""The simulated person of benchmarks.studio_work keeps to the tolerance and to the prices."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.annotator import OUTSIDE, Person, Work
from benchmarks.brush_strokes import best_strokes
from benchmarks.outlines import outline_of_region, polygon_pixels, simplified

IGNORED = 255
Mask = NDArray[np.uint8]


def scene(seed: int) -> Mask:
    """Smooth random regions of four classes, some within others."""
    noise = np.random.default_rng(seed).normal(size=(48, 48))
    smooth = ndimage.gaussian_filter(noise, 5)
    return np.digitize(smooth, np.quantile(smooth, (0.3, 0.6, 0.9))).astype(np.uint8)


def test_an_exact_outline_gives_back_its_region_and_a_simpler_one_stays_within_the_tolerance() -> (
    None
):
    for seed in range(4):
        parts, _ = ndimage.label(scene(seed) >= 2)
        region = ndimage.binary_fill_holes(parts == 1)
        corners = outline_of_region(region)
        assert (polygon_pixels(corners, region.shape) == region).all()
        simple = simplified(corners, 1.0)
        assert 3 <= len(simple) < len(corners)
        wrong = polygon_pixels(simple, region.shape) != region
        inside = ndimage.distance_transform_edt(region)
        outside = ndimage.distance_transform_edt(~region)
        assert (np.maximum(inside, outside)[wrong] <= 2).all()


def test_polygons_and_repairs_leave_no_fault() -> None:
    for seed in range(1, 2):
        person = Person(scene(seed), IGNORED, 1.0)
        drawn, work = person.polygons()
        assert not (drawn == IGNORED).any()
        assert (drawn != person.truth).mean() < 0.06 and work.clicks > 10
        for start in (np.full_like(person.truth, IGNORED), np.roll(person.truth, 6, axis=0)):
            mask = start.copy()

            def select(mask: Mask, column: int, row: int, class_id: int) -> tuple[Mask, int]:
                """Knows the region, but for a stripe; a step more takes in too much."""
                levels = np.full_like(mask, OUTSIDE)
                parts, _ = ndimage.label(person.truth == class_id)  # noqa: B023
                levels[ndimage.binary_dilation(parts == parts[row, column])] = 1
                levels[parts == parts[row, column]] = 0
                levels[:, 20:24] = OUTSIDE
                return levels, 1

            work = person.smart(mask, select, lambda mask: None)
            assert next(person.faults(mask), None) is None
            assert 0 < work.cost(48) < person.truth.size


def test_a_stroke_never_spoils_a_neighbor_and_costs_its_length() -> None:
    free = scene(0) == 2
    wrong = free & (np.arange(48) < 30)
    strokes = best_strokes(wrong, free, 6.0)
    assert (strokes.painted & wrong).any() and not (strokes.painted & ~free).any()
    line = np.zeros((9, 48), bool)
    line[4, 4:40] = True
    work = Work()
    work.add(best_strokes(line, line, 6.0))
    assert (work.strokes, work.clicks) == (1, 0)
    assert 35 <= work.stroke_px <= 36 + 35  # from within it, and at most back again
    dot = np.zeros((9, 48), bool)
    dot[3, 3] = True
    work.add(best_strokes(dot, dot, 6.0))
    assert work.clicks == 1
    assert work.cost(48) == 1 + 1 + work.stroke_px / 6


def test_small_regions_are_right_to_the_pixel_where_the_person_asks_for_it() -> None:
    truth = np.zeros((48, 48), np.uint8)
    truth[4:9, 4:9] = 1  # 25 pixels
    truth[20:44, 20:44] = 2
    shifted = np.zeros_like(truth)
    shifted[5:9, 4:10] = 1  # a row is missing, a column too much
    shifted[21:44, 20:44] = 2

    def select(mask: Mask, column: int, row: int, class_id: int) -> tuple[Mask, int]:
        raise AssertionError("the brush is enough")

    tolerant, exact = shifted.copy(), shifted.copy()
    Person(truth, IGNORED, 1.0).smart(tolerant, select, lambda mask: None)
    Person(truth, IGNORED, 1.0, small_px=25).smart(exact, select, lambda mask: None)
    assert (tolerant == shifted).all()
    wrong = exact != truth
    assert wrong.any() and (np.argwhere(wrong) >= 20).all()
