"""Labels against the truth: IoU, PCK, depth errors, and the error of each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.interpreter.predict import Prediction
from training.labels.labelled_set import LabelledSet

PCK_ALPHA = 0.1


@dataclass(frozen=True)
class Scores:
    """How well the labels of some images agree with the truth; nan: nothing to measure."""

    images: int
    iou: NDArray[np.float64]  # [classes], over all known pixels; nan: class absent
    pck: float  # share of visible keypoints within PCK_ALPHA of the box, Yang and Ramanan 2013
    keypoint_error_px: float  # mean distance
    depth_rmse: float  # in units of the truth
    depth_abs_rel: float  # mean of |error| / truth where the truth is above 0

    @property
    def miou(self) -> float:
        """Mean IoU over the classes present."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")


def scores_of(predicted: Sequence[Prediction], truth: LabelledSet) -> Scores:
    """Scores of predictions [n], in the order of the truth's images."""
    classes = 0 if truth.classes is None else len(truth.classes.cards)
    confusion = np.zeros((classes, classes), np.int64)
    distances, reaches, errors, relative = [], [], [], []
    for i, labels in enumerate(predicted):
        if labels.mask is not None and truth.masks is not None:
            known = truth.masks[i] != truth.ignore_id
            pairs = truth.masks[i][known].astype(np.int64) * classes + labels.mask[known]
            confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        if labels.keypoints is not None and truth.keypoints is not None:
            distance, reach = keypoint_distances(labels.keypoints, truth.keypoints[i])
            distances.append(distance)
            reaches.append(np.full_like(distance, reach))
        if labels.depth is not None and truth.depth is not None:
            known = np.isfinite(truth.depth[i])
            error = labels.depth[known].astype(np.float64) - truth.depth[i][known]
            errors.append(error)
            ahead = truth.depth[i][known] > 0
            relative.append(np.abs(error[ahead]) / truth.depth[i][known][ahead])
    near = _joined(distances) <= PCK_ALPHA * _joined(reaches)
    return Scores(
        images=len(predicted),
        iou=_iou(confusion),
        pck=_mean(near.astype(np.float64)),
        keypoint_error_px=_mean(_joined(distances)),
        depth_rmse=float(np.sqrt(_mean(np.square(_joined(errors))))),
        depth_abs_rel=_mean(_joined(relative)),
    )


def keypoint_distances(
    found: NDArray[np.float32], true: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """Distances of the visible keypoints in pixels, and the larger side of the box around them."""
    visible = true[:, 2] > 0
    offset = found[visible, :2].astype(np.float64) - true[visible, :2]
    extent = np.ptp(true[visible, :2], axis=0).max() if visible.any() else 0.0
    return np.hypot(offset[:, 0], offset[:, 1]), float(extent)


def image_errors(
    predicted: Sequence[Prediction], truth: LabelledSet, kind: str
) -> NDArray[np.float64]:
    """What the uncertainty should foretell, [n]: the share of wrong pixels, the mean keypoint
    distance or the depth RMSE of each image, by the head the score is from; nan: no truth."""
    return np.array([_image_error(p, truth, i, kind) for i, p in enumerate(predicted)])


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
