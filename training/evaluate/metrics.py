"""Predictions and true labels -> IoU, PCK, depth errors, and the error of each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.interpreter.predict import Prediction
from training.labels.labelled_set import LabelledSet

PCK_ALPHA = 0.1  # a keypoint is correct within this share of the box around all keypoints


@dataclass(frozen=True)
class Scores:
    """Agreement of predicted and true labels over n images; nan where there is no true label."""

    images: int  # n
    iou: NDArray[np.float64]  # [classes], pooled over all labeled pixels; nan: class absent
    pck: float  # share of visible keypoints that are correct (PCK, Yang and Ramanan 2013)
    keypoint_error_px: float  # mean distance of visible keypoints
    depth_rmse: float  # in units of the true depth
    depth_abs_rel: float  # mean of |error| / truth over pixels with a true depth above 0

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are present."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")


def scores_from_predictions(predicted: Sequence[Prediction], truth: LabelledSet) -> Scores:
    """Scores of predictions, in the order of the images of `truth`."""
    classes = 0 if truth.classes is None else len(truth.classes.cards)
    confusion = np.zeros((classes, classes), np.int64)
    distances, box_sides, errors, relative = [], [], [], []
    for i, labels in enumerate(predicted):
        if labels.mask is not None and truth.masks is not None:
            known = truth.masks[i] != truth.ignore_id
            pairs = truth.masks[i][known].astype(np.int64) * classes + labels.mask[known]
            confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        if labels.keypoints is not None and truth.keypoints is not None:
            distance, box_side = keypoint_distances(labels.keypoints, truth.keypoints[i])
            distances.append(distance)
            box_sides.append(np.full_like(distance, box_side))
        if labels.depth is not None and truth.depth is not None:
            known = np.isfinite(truth.depth[i])
            error = labels.depth[known].astype(np.float64) - truth.depth[i][known]
            errors.append(error)
            positive = truth.depth[i][known] > 0
            relative.append(np.abs(error[positive]) / truth.depth[i][known][positive])
    correct = _joined(distances) <= PCK_ALPHA * _joined(box_sides)
    return Scores(
        images=len(predicted),
        iou=_iou(confusion),
        pck=_mean(correct.astype(np.float64)),
        keypoint_error_px=_mean(_joined(distances)),
        depth_rmse=float(np.sqrt(_mean(np.square(_joined(errors))))),
        depth_abs_rel=_mean(_joined(relative)),
    )


def keypoint_distances(
    predicted: NDArray[np.float32], true: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """Distances in pixels of the visible keypoints, and the longer side of the box around them.

    Both arguments are [K, 3]: x, y in pixels, and in `true` visible 0 or 1.
    """
    visible = true[:, 2] > 0
    offset = predicted[visible, :2].astype(np.float64) - true[visible, :2]
    box_side = np.ptp(true[visible, :2], axis=0).max() if visible.any() else 0.0
    return np.hypot(offset[:, 0], offset[:, 1]), float(box_side)


def image_errors(
    predicted: Sequence[Prediction], truth: LabelledSet, kind: str
) -> NDArray[np.float64]:
    """Error of each image, [n], that a score from the head `kind` should predict: share of wrong
    pixels (segmentation), mean distance (keypoints) or RMSE (depth); nan without true labels."""
    return np.array([_image_error(p, truth, i, kind) for i, p in enumerate(predicted)])


def image_ious(predicted: Sequence[Prediction], truth: LabelledSet) -> NDArray[np.float64]:
    """Mean IoU of each image, [n], over the classes in its mask or its prediction; nan without."""
    return np.array(
        [
            scores_from_predictions([labels], truth.rows(np.array([i]))).miou
            for i, labels in enumerate(predicted)
        ]
    )


def _image_error(labels: Prediction, truth: LabelledSet, i: int, kind: str) -> float:
    if kind == "segmentation" and labels.mask is not None and truth.masks is not None:
        known = truth.masks[i] != truth.ignore_id
        return _mean((labels.mask != truth.masks[i])[known].astype(np.float64))
    if kind == "keypoints" and labels.keypoints is not None and truth.keypoints is not None:
        return _mean(keypoint_distances(labels.keypoints, truth.keypoints[i])[0])
    if kind == "depth" and labels.depth is not None and truth.depth is not None:
        known = np.isfinite(truth.depth[i])
        squared = np.square(labels.depth[known].astype(np.float64) - truth.depth[i][known])
        return float(np.sqrt(_mean(squared)))
    return float("nan")


def _iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    agreed = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - agreed
    iou = np.full(len(agreed), np.nan)
    np.divide(agreed, union, out=iou, where=union > 0)
    return iou


def _joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
