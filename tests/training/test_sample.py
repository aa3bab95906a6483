"""Images for people to label are chosen, not just drawn."""

import numpy as np

from training.images.sample import spread_rows, typical_rows


def clusters(sizes: tuple[int, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Points around (0, 0), (10, 0), (20, 0) ..., and one far away from all."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.arange(len(sizes)) * 10.0, sizes)
    points = np.stack([centres, np.zeros_like(centres)], axis=1)
    points += rng.normal(scale=0.5, size=points.shape)
    return np.concatenate([points, [[10.0, 9.0]]]).astype(np.float32)


def test_typical_images_stand_for_clusters_the_largest_first() -> None:
    points = clusters((30, 60, 20))
    for seed in range(5):
        chosen = typical_rows(points, 3, seed)
        np.testing.assert_allclose(points[chosen], [[10, 0], [0, 0], [20, 0]], atol=0.6)
        np.testing.assert_array_equal(chosen, typical_rows(points, 3, seed))


def test_farthest_images_take_the_odd_ones_too() -> None:
    points = clusters((30, 60, 20))
    assert len(points) - 1 in spread_rows(points, 4)


def test_no_image_is_chosen_twice_even_among_equals() -> None:
    for points in (np.zeros((6, 2), np.float32), clusters((3, 2))):
        for choose in (lambda p, n: typical_rows(p, n, 0), spread_rows):
            assert len(set(choose(points, 6).tolist())) == 6
