"""Measures say what their names say."""

from dataclasses import replace

import numpy as np
import pytest
import scipy

from tests.training.sets import partly_labelled, tiny_labels
from training.evaluate.metrics import image_errors, scores_from_predictions
from training.evaluate.sparsification import sparsification_from_scores, tenths_from_pixels
from training.interpreter.predict import Prediction


def perfect() -> list[Prediction]:
    labels = tiny_labels()
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    return [
        Prediction(m, k, d, 0.0, np.zeros_like(d))
        for m, k, d in zip(labels.masks, labels.keypoints, labels.depth, strict=True)
    ]


def test_perfect_labels_have_perfect_scores_whatever_was_not_labelled() -> None:
    for truth in (tiny_labels(), partly_labelled()):
        scores = scores_from_predictions(perfect(), truth)
        assert scores.miou == 1 and scores.pck == 1 and scores.keypoint_error_px == 0
        assert scores.depth_rmse == 0 and scores.depth_abs_rel == 0
        for kind in ("segmentation", "keypoints", "depth"):
            errors = image_errors(perfect(), truth, kind)
            assert (errors[np.isfinite(errors)] == 0).all()


def test_iou_pools_the_pixels_of_all_images() -> None:
    truth = tiny_labels(2)
    truth = replace(truth, masks=np.zeros((2, 16, 16), np.uint8), keypoints=None, depth=None)
    assert truth.masks is not None
    truth.masks[0, :4] = 1
    found = truth.masks.copy()
    found[0, 2:4] = 0
    found[1, 0] = 1
    predicted = [Prediction(m, None, None, None, None) for m in found]
    scores = scores_from_predictions(predicted, truth)
    # class 1: 32 pixels agree of 64 true and 48 found; class 0: 512 - 64 - 16 agree
    np.testing.assert_allclose(scores.iou, [432 / (448 + 464 - 432), 32 / (64 + 48 - 32), np.nan])
    assert scores.miou == pytest.approx((0.9 + 0.4) / 2)


def test_pck_counts_visible_points_within_a_tenth_of_their_box() -> None:
    truth = replace(tiny_labels(1), masks=None, depth=None)
    points = np.array([[[2, 2, 1], [12, 6, 1], [5, 5, 1], [9, 9, 0]]], np.float32)
    found = points[0].copy()
    found[0, 0] += 0.9  # the box is 10 wide
    found[1, 1] += 1.1
    found[3] += 99  # not there
    predicted = [Prediction(None, found, None, None, None)]
    scores = scores_from_predictions(predicted, replace(truth, keypoints=points))
    assert scores.pck == pytest.approx(2 / 3)
    assert scores.keypoint_error_px == pytest.approx((0.9 + 1.1) / 3, rel=1e-5)


def test_depth_errors_are_root_mean_square_and_relative() -> None:
    truth = replace(tiny_labels(1), masks=None, keypoints=None)
    depth = np.full((1, 16, 16), 2.0, np.float32)
    depth[0, 0, 0] = np.nan
    depth[0, 0, 1] = 0
    found = np.full((16, 16), 3.0, np.float32)
    scores = scores_from_predictions(
        [Prediction(None, None, found, None, None)], replace(truth, depth=depth)
    )
    assert scores.depth_rmse == pytest.approx(np.sqrt((254 * 1 + 9) / 255))
    assert scores.depth_abs_rel == pytest.approx(0.5)


def test_scores_of_nothing_are_nan_and_not_errors() -> None:
    truth = replace(tiny_labels(1), masks=None, keypoints=None, depth=None, classes=None)
    scores = scores_from_predictions([Prediction(None, None, None, None, None)], truth)
    assert np.isnan([scores.miou, scores.pck, scores.depth_rmse, scores.depth_abs_rel]).all()


def test_leaving_out_by_score_is_measured_against_leaving_out_by_error() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(size=40)
    scores = errors + rng.normal(scale=0.3, size=40).round(1)
    found = sparsification_from_scores(scores, errors)
    assert found.correlation == pytest.approx(scipy.stats.spearmanr(scores, errors).statistic)
    best = np.argsort(scores, kind="stable")
    assert found.error == pytest.approx(errors.mean())
    assert found.error_without_tenth == pytest.approx(errors[best[:36]].mean())
    assert found.oracle_without_tenth == pytest.approx(np.sort(errors)[:36].mean())
    assert (found.by_error <= found.by_score + 1e-12).all()
    constant = sparsification_from_scores(np.zeros(5), np.arange(5.0))
    assert np.isnan(constant.correlation)


def test_pixels_are_told_apart_by_tenths_of_their_uncertainty() -> None:
    uncertainty = np.arange(100)[::-1] / 100
    found = tenths_from_pixels(uncertainty, uncertainty > 0.845)
    np.testing.assert_allclose(found.wrong, [0] * 8 + [0.5, 1.0])
    assert (np.diff(found.uncertainty) > 0).all()
