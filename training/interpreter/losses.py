"""What the heads should say of chosen pixels, and how wrong they are."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nets.interpreter import EnsembleHead, HeadKind
from training.interpreter.config import FitConfig
from training.interpreter.pixel_sampler import Pixels
from training.labels.labelled_set import LabelledSet


class Targets:
    """Labels of a set as tensors.

    Depth is trained in standard units, and brought back by `with_depth_units`.
    """

    def __init__(
        self, labels: LabelledSet, config: FitConfig, device: torch.device | None = None
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
            self.depth_mean, self.depth_std = _moments(labels.depth)
            self.depth = tensor((labels.depth - self.depth_mean) / self.depth_std)
        weights = config.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights, device=device)

    def losses(self, predictions: dict[HeadKind, Tensor], pixels: Pixels) -> dict[HeadKind, Tensor]:
        """{kind: [members, P, outputs]} -> {kind: mean loss of each member, [members]}.

        Cross-entropy of segmentation; squared error of heatmap values, summed over keypoints, and
        of depth (DatasetGAN, HandsOff). Pixels without a label of the kind do not count.
        """
        return {kind: self._loss(kind, x, pixels) for kind, x in predictions.items()}

    def _loss(self, kind: HeadKind, prediction: Tensor, pixels: Pixels) -> Tensor:
        if kind == "segmentation":
            return self._cross_entropy(prediction, pixels)
        target = self.heatmaps(pixels) if kind == "keypoints" else self._depth(pixels)
        known = torch.isfinite(target)
        wanted = torch.where(known, target, 0).to(prediction.dtype)
        error = ((prediction - wanted).square() * known).sum(dim=2)  # [m, P]
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
        """Gaussian targets at the pixels' centres, [P, K]; zero where a keypoint is not there, NaN
        where nobody looked."""
        assert self.keypoints is not None  # else there is no such head
        x, y, visible = self.keypoints[pixels.images].unbind(dim=2)  # [P, K] each
        squared = (pixels.columns[:, None] + 0.5 - x).square()
        squared = squared + (pixels.rows[:, None] + 0.5 - y).square()
        return visible * torch.exp(squared / (-2 * self.sigma_px**2))

    def _depth(self, pixels: Pixels) -> Tensor:
        assert self.depth is not None  # else there is no such head
        return self.depth[pixels.images, pixels.rows, pixels.columns][:, None]  # [P, 1]

    @torch.no_grad()
    def with_depth_units(self, head: EnsembleHead) -> None:
        """Folds the standardisation into the head's last layer."""
        head.weight3.mul_(self.depth_std)
        head.bias3.mul_(self.depth_std).add_(self.depth_mean)


def _moments(depth: NDArray[np.float32]) -> tuple[float, float]:
    known = depth[np.isfinite(depth)].astype(np.float64)
    std = float(known.std())
    return float(known.mean()), std if std > 0 else 1.0
