"""Every labelled region of every image is trained on, and nothing that nobody labelled."""

from dataclasses import replace

import numpy as np
import torch

from tests.training.sets import partly_labelled, tiny_labels
from training.interpreter.pixel_sampler import PixelSampler

SIGMA = 1.0


def test_every_region_of_every_image_is_in_every_step() -> None:
    labels = tiny_labels()
    assert labels.masks is not None and labels.keypoints is not None
    sampler = PixelSampler(labels, SIGMA, seed=0)
    for step in range(20):
        pixels = sampler.draw(step, 4 * 32)
        for i, mask in enumerate(labels.masks):
            mine = pixels.images == i
            rows, columns = pixels.rows[mine].numpy(), pixels.columns[mine].numpy()
            assert len(rows) == 32
            drawn = np.bincount(mask[rows, columns], minlength=3)
            assert (drawn[np.unique(mask)] >= 4).all()  # 16 of 32 over 3 classes and a keypoint
            x, y, _ = labels.keypoints[i, 0]
            assert (np.hypot(columns + 0.5 - x, rows + 0.5 - y) <= 2 * SIGMA).sum() >= 4


def test_pixels_without_any_label_are_never_drawn() -> None:
    labels = replace(partly_labelled(), keypoints=None)
    assert labels.masks is not None and labels.depth is not None
    known = (labels.masks != 255) | np.isfinite(labels.depth)
    sampler = PixelSampler(labels, SIGMA, seed=3)
    for step in range(20):
        pixels = sampler.draw(step, 256)
        assert known[pixels.images, pixels.rows, pixels.columns].all()


def test_an_epoch_has_every_labelled_pixel_once_in_its_own_order() -> None:
    labels = replace(partly_labelled(), keypoints=None, depth=None)
    assert labels.masks is not None
    sampler = PixelSampler(labels.rows(np.arange(3)), SIGMA, seed=0)
    known = np.argwhere(labels.masks[:3] != 255)
    first, second = sampler.shuffled(0), sampler.shuffled(1)
    for pixels in (first, second):
        drawn = torch.stack([pixels.images, pixels.rows, pixels.columns], dim=1).numpy()
        np.testing.assert_array_equal(drawn[np.lexsort(drawn.T[::-1])], known)
    assert not torch.equal(first.rows, second.rows)


def test_a_step_is_a_function_of_seed_and_step() -> None:
    labels = tiny_labels()
    one, same, other = (PixelSampler(labels, SIGMA, seed) for seed in (5, 5, 6))
    for step in (0, 7):
        assert torch.equal(one.draw(step, 64).rows, same.draw(step, 64).rows)
        assert not torch.equal(one.draw(step, 64).rows, other.draw(step, 64).rows)
    assert not torch.equal(one.draw(0, 64).rows, one.draw(7, 64).rows)


def test_more_images_than_pixels_take_turns() -> None:
    sampler = PixelSampler(tiny_labels(8), SIGMA, seed=0)
    seen = set()
    for step in range(40):
        pixels = sampler.draw(step, 2)
        assert len(pixels) == 2 and len(set(pixels.images.tolist())) == 2
        seen |= set(pixels.images.tolist())
    assert seen == set(range(8))


def test_all_pixels_of_a_fit_are_known_beforehand() -> None:
    sampler = PixelSampler(tiny_labels(), SIGMA, seed=0)
    expected = np.zeros((4, 16, 16), bool)
    for step in range(6):
        pixels = sampler.draw(step, 64)
        for i, row, column in zip(pixels.images, pixels.rows, pixels.columns, strict=True):
            expected[i, row, column] = True
    np.testing.assert_array_equal(sampler.drawn_mask(6, 64), expected)
    assert not expected.all()
