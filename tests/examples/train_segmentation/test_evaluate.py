"""The scores in the table follow their definitions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.demo.scene import GLASSES
from examples.demo.score import score_labels
from examples.train_segmentation.evaluate import head_extents, pck, score_of
from examples.train_segmentation.fit import gaussians
from examples.train_segmentation.samples import (
    rendered,
)
from examples.train_segmentation.unet import points_from_heatmaps
from tests.examples.train_segmentation.drawn import SMALL, generator


def literal_iou(truth: Tensor, predicted: Tensor, class_id: int) -> float:
    both = either = 0
    for a, b in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        both += a == class_id and b == class_id
        either += a == class_id or b == class_id
    return both / either if either else float("nan")


@pytest.mark.parametrize("seed", range(4))
def test_iou_is_that_of_the_definition_over_all_pixels(seed: int) -> None:
    classes = 2 + seed * 2
    truth = torch.randint(0, classes - 1, (3, 5, 7), generator=generator(seed)).byte()
    predicted = torch.randint(0, classes, (3, 5, 7), generator=generator(seed + 9)).byte()
    points = np.zeros((3, 1, 3), np.float32)
    found = score_labels(predicted.numpy(), points, truth.numpy(), points, num_classes=classes + 1)
    expected = [literal_iou(truth, predicted, c) for c in range(classes + 1)]
    assert np.isnan(expected[-1])  # in neither: left out of the mean
    np.testing.assert_allclose(found.iou, expected, rtol=1e-12)
    assert found.miou == pytest.approx(np.mean(expected[:-1]))


def test_pck_counts_seen_keypoints_within_a_tenth_of_the_head() -> None:
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 10:50, 20:40] = 1  # 40 high, 20 wide: the limit is 4 px
    masks[0, 10, 20] = GLASSES  # any part counts
    masks[1, 30, 5:35] = 2  # 1 high, 30 wide: 3 px
    assert head_extents(masks).tolist() == [40, 30]
    truth = torch.tensor([[[10.0, 10, 1], [20, 20, 1], [30, 30, 0]], [[10, 10, 1]] * 3])
    points = truth[..., :2].clone()
    points[0, 0, 0] += 3.9  # near
    points[0, 1, 1] += 4.1  # far
    points[0, 2] += 50  # not seen
    points[1, 0, 0] += 3.1  # far
    assert pck(points, truth, 0.1 * head_extents(masks)) == pytest.approx(3 / 5)


def test_an_image_without_a_head_has_extent_zero() -> None:
    assert head_extents(torch.zeros(1, 8, 8, dtype=torch.uint8)).tolist() == [0]


def test_the_truth_itself_scores_one() -> None:
    samples = rendered(SMALL)
    score = score_of(samples.masks, samples.keypoints[..., :2], samples)
    assert score.miou == 1 and score.pck == 1 and score.keypoint_error_px == 0


def test_a_heatmap_s_point_is_where_its_target_was_put() -> None:
    points = torch.rand(5, 4, 2, generator=generator()) * torch.tensor([20.0, 12.0]) + 6
    heat = gaussians(torch.cat([points, torch.ones(5, 4, 1)], 2), torch.Size([24, 32]), 1.5).log()
    torch.testing.assert_close(points_from_heatmaps(heat), points, atol=0.2, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_pck_is_that_of_the_definition(seed: int) -> None:
    source = generator(seed)
    truth = torch.rand(5, 3, 3, generator=source) * 8
    truth[..., 2] = truth[..., 2].round() % 2
    points = truth[..., :2] + torch.randn(5, 3, 2, generator=source)
    limits = torch.rand(5, generator=source) * 2
    correct = [
        np.hypot(*(points[i, k] - truth[i, k, :2]).tolist()) <= limits[i]
        for i in range(5)
        for k in range(3)
        if truth[i, k, 2]
    ]
    assert pck(points, truth, limits) == pytest.approx(np.mean(correct))
