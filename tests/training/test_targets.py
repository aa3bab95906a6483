"""A loss counts what people labelled, each pixel as the papers say, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nets.interpreter import HeadConfig, HeadKind, Interpreter
from tests.training.sets import partly_labelled, tiny_labels
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.losses import LabelLosses
from training.interpreter.pixel_sampler import Pixels

OUTPUTS: dict[HeadKind, int] = {"segmentation": 3, "keypoints": 1, "depth": 1}


def all_pixels(images: int = 4) -> Pixels:
    grid = torch.meshgrid(torch.arange(images), torch.arange(16), torch.arange(16), indexing="ij")
    return Pixels(*(axis.flatten() for axis in grid))


def random_predictions(pixels: int) -> dict[HeadKind, torch.Tensor]:
    torch.manual_seed(0)
    return {kind: torch.randn(2, pixels, outputs) for kind, outputs in OUTPUTS.items()}


def test_losses_are_the_papers_on_the_labelled_pixels_alone() -> None:
    labels, pixels = partly_labelled(), all_pixels()
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    predictions = random_predictions(len(pixels))
    targets = LabelLosses(labels, InterpreterTrainConfig(sigma_px=2.0))
    losses = targets.by_head(predictions, pixels)
    masks = torch.from_numpy(labels.masks).long().flatten()
    known_depth = np.isfinite(labels.depth)
    mean, std = labels.depth[known_depth].mean(), labels.depth[known_depth].std()
    depth = torch.from_numpy((labels.depth - mean) / std).flatten()
    for k in range(2):
        logits = predictions["segmentation"][k]
        expected = F.cross_entropy(logits, masks, ignore_index=255)
        torch.testing.assert_close(losses["segmentation"][k], expected)
        known = torch.isfinite(depth)
        difference = (predictions["depth"][k, :, 0] - depth)[known]
        torch.testing.assert_close(
            losses["depth"][k], difference.square().mean(), rtol=1e-4, atol=1e-5
        )
        errors = []
        for i in (2, 3):  # nobody looked for keypoints in the first two
            x, y, visible = labels.keypoints[i, 0]
            for p in range(256):
                squared = (p % 16 + 0.5 - x) ** 2 + (p // 16 + 0.5 - y) ** 2
                value = visible * np.exp(-squared / 8)
                errors.append((predictions["keypoints"][k, i * 256 + p, 0] - value) ** 2)
        torch.testing.assert_close(losses["keypoints"][k], torch.stack(errors).mean().float())


def test_class_weights_are_those_of_the_cross_entropy() -> None:
    labels, pixels = tiny_labels(), all_pixels()
    assert labels.masks is not None
    weights = (0.5, 3.0, 0.0)
    predictions = random_predictions(len(pixels))
    targets = LabelLosses(labels, InterpreterTrainConfig(class_weights=weights))
    found = targets.by_head({"segmentation": predictions["segmentation"]}, pixels)["segmentation"]
    masks = torch.from_numpy(labels.masks).long().flatten()
    for k in range(2):
        expected = F.cross_entropy(
            predictions["segmentation"][k], masks, weight=torch.tensor(weights)
        )
        torch.testing.assert_close(found[k], expected)


def test_a_keypoint_that_is_not_there_has_an_empty_heatmap() -> None:
    labels = tiny_labels()
    assert labels.keypoints is not None
    hidden = labels.keypoints.copy()
    hidden[1, 0, 2] = 0
    targets = LabelLosses(replace(labels, keypoints=hidden), InterpreterTrainConfig())
    maps = targets.heatmaps(all_pixels()).view(4, 256)
    assert (maps[1] == 0).all() and (maps[0] > 0.99).any()


def test_pixels_without_any_label_of_a_kind_give_no_loss_and_no_nan() -> None:
    labels = partly_labelled()
    only = Pixels(torch.tensor([0, 0]), torch.tensor([3, 4]), torch.tensor([9, 12]))
    losses = LabelLosses(labels, InterpreterTrainConfig()).by_head(random_predictions(2), only)
    assert all((loss == 0).all() for loss in losses.values())


@pytest.mark.parametrize("flat", [False, True])
def test_a_depth_head_speaks_in_the_users_units(flat: bool) -> None:
    labels = tiny_labels()
    assert labels.depth is not None
    depth = np.full_like(labels.depth, 7.0) if flat else labels.depth
    targets = LabelLosses(replace(labels, depth=depth), InterpreterTrainConfig())
    torch.manual_seed(0)
    head = Interpreter((HeadConfig("depth", 8, (4, 4), 1, 2),)).eval().head("depth")
    x = torch.randn(5, 8)
    with torch.no_grad():
        before = head(x)
        targets.restore_depth_units(head)
        torch.testing.assert_close(
            head(x), before * targets.depth_std + targets.depth_mean, rtol=1e-5, atol=1e-3
        )
    assert targets.depth_mean == pytest.approx(depth.mean(), rel=1e-5)
