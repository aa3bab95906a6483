"""Labels of chosen pixels, and the loss of each head against them."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nets.interpreter import EnsembleHead, HeadKind
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.pixel_sampler import Pixels
from training.labels.labelled_set import LabelledSet


class LabelLosses:
    """Losses against the labels of a set.

    Depth is trained standardized, (depth - mean) / std. `restore_depth_units` changes a trained
    head to predict in the units of the labels.
    """

    def __init__(
        self,
        labels: LabelledSet,
        config: InterpreterTrainConfig,
        device: torch.device | None = None,
    ) -> None:
        def tensor(array: NDArray[Any] | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(device)

        self.masks = tensor(labels.masks)
        self.ignore_id = labels.ignore_id
        self.keypoints = tensor(labels.keypoints)
        self.sigma_px = config.sigma(labels.crop.grid)
        self.depth_mean, self.depth_std = 0.0, 1.0
        self.depth = None
        if labels.depth is not None:
            self.depth_mean, self.depth_std = _mean_and_std(labels.depth)
            self.depth = tensor((labels.depth - self.depth_mean) / self.depth_std)
        weights = config.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights, device=device)

    def by_head(
        self, predictions: dict[HeadKind, Tensor], pixels: Pixels
    ) -> dict[HeadKind, Tensor]:
        """Raw outputs {kind: [members, P, outputs]} -> {kind: mean loss of each member [members]}.

        Cross-entropy for segmentation; squared error for depth, and for heatmap values, summed over
        keypoints (DatasetGAN, HandsOff). Pixels without a label of that kind are left out.
        """
        return {kind: self._loss(kind, x, pixels) for kind, x in predictions.items()}

    def _loss(self, kind: HeadKind, prediction: Tensor, pixels: Pixels) -> Tensor:
        if kind == "segmentation":
            return self._cross_entropy(prediction, pixels)
        target = self.heatmaps(pixels) if kind == "keypoints" else self._depth_at(pixels)
        known = torch.isfinite(target)
        finite = torch.where(known, target, 0).to(prediction.dtype)
        error = ((prediction - finite).square() * known).sum(dim=2)  # [members, P]
        return error.sum(dim=1) / known.any(dim=1).sum().clamp(min=1)

    def _cross_entropy(self, logits: Tensor, pixels: Pixels) -> Tensor:
        assert self.masks is not None  # else there is no such head
        target = self.masks[pixels.images, pixels.rows, pixels.columns].long()  # [P]
        known = target != self.ignore_id
        members = logits.shape[0]
        error = F.cross_entropy(
            logits.flatten(0, 1), torch.where(known, target, 0).repeat(members), reduction="none"
        ).view(members, -1)
        weight = known.to(logits.dtype)
        if self.class_weights is not None:
            weight = weight * self.class_weights.to(logits.dtype)[torch.where(known, target, 0)]
        return (error * weight).sum(dim=1) / weight.sum().clamp(min=1e-12)

    def heatmaps(self, pixels: Pixels) -> Tensor:
        """Heatmap values at the centers of pixels, [P, K]: a Gaussian around each keypoint.

        0 for keypoints that are not visible, NaN in images without keypoint labels.
        """
        assert self.keypoints is not None  # else there is no such head
        x, y, visible = self.keypoints[pixels.images].unbind(dim=2)  # [P, K] each
        squared = (pixels.columns[:, None] + 0.5 - x).square()
        squared = squared + (pixels.rows[:, None] + 0.5 - y).square()
        return visible * torch.exp(squared / (-2 * self.sigma_px**2))

    def _depth_at(self, pixels: Pixels) -> Tensor:
        assert self.depth is not None  # else there is no such head
        return self.depth[pixels.images, pixels.rows, pixels.columns][:, None]  # [P, 1]

    @torch.no_grad()
    def restore_depth_units(self, head: EnsembleHead) -> None:
        """Multiplies by std and adds mean in the head's last layer, in place."""
        head.weight3.mul_(self.depth_std)
        head.bias3.mul_(self.depth_std).add_(self.depth_mean)


def _mean_and_std(depth: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of the known values; a deviation of 0 becomes 1."""
    known = depth[np.isfinite(depth)].astype(np.float64)
    std = float(known.std())
    return float(known.mean()), std if std > 0 else 1.0
