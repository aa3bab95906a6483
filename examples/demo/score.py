"""Scores of labels, compared with the renderer's exact truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.demo.scene import BACKGROUND


@dataclass(frozen=True)
class LabelScore:
    """How well the labels of some samples agree with the truth."""

    samples: int
    iou: NDArray[np.float64]  # [classes], over all pixels of all samples; nan: class absent
    pixel_error: NDArray[np.float64]  # [samples], share of wrong pixels
    keypoint_error_px: float  # mean distance over the keypoints visible in truth

    @property
    def miou(self) -> float:
        """Mean IoU over the classes present."""
        return float(np.nanmean(self.iou)) if self.samples else float("nan")


@dataclass(frozen=True)
class DepthScore:
    """Errors of depth by the measures of Eigen et al. (2014).

    Measured on the true pixels of the head. The wall behind it is equal in every image and would
    only reduce the errors. The share of pixels within a factor of 1.25 is omitted: a head is so
    shallow that any constant depth in it reaches nearly 100%.
    """

    rmse: float  # in the unit of the truth
    abs_rel: float  # mean of |error| / truth


def score_depth(
    depth: NDArray[np.floating],  # [n, H, W]
    true_depth: NDArray[np.float32],
    true_masks: NDArray[np.uint8],
) -> DepthScore:
    """Scores the depth of n samples; nan if no true pixel is of the head."""
    head = true_masks != BACKGROUND
    if not head.any():
        return DepthScore(float("nan"), float("nan"))
    true = true_depth[head].astype(np.float64)
    error = np.abs(depth[head] - true)
    return DepthScore(float(np.sqrt(np.square(error).mean())), float((error / true).mean()))


def score_labels(
    masks: NDArray[np.uint8],  # [n, H, W]
    keypoints: NDArray[np.float32],  # [n, K, 3]
    true_masks: NDArray[np.uint8],
    true_keypoints: NDArray[np.float32],  # [n, K, 3], the last is 1 where visible
    num_classes: int,
) -> LabelScore:
    """Scores n samples; n may be 0."""
    pairs = true_masks.astype(np.int64) * num_classes + masks
    confusion = np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, -1)
    agreed = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - agreed
    iou = np.divide(agreed, union, out=np.full(num_classes, np.nan), where=union > 0)
    visible = true_keypoints[..., 2] > 0
    distance = np.hypot(*np.moveaxis(keypoints[..., :2] - true_keypoints[..., :2], -1, 0))
    return LabelScore(
        samples=len(masks),
        iou=iou,
        pixel_error=(masks != true_masks).mean(axis=(1, 2)),
        keypoint_error_px=float(distance[visible].mean()) if visible.any() else float("nan"),
    )
