"""The training loop, the same for every arm.

A seed and labeled batches enter, the trained network leaves.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from examples.train_segmentation.augment import Variation, varied
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet, UNetConfig, UNetOutput


@dataclass(frozen=True)
class UNetTrainConfig:
    """Settings of the training, the same for every arm."""

    steps: int = 800
    batch_size: int = 16
    learning_rate: float = 2e-3  # of AdamW after the warm-up; falls to 0 along half a cosine
    warm_up: int = 50  # steps
    weight_decay: float = 1e-2
    gradient_norm: float = 1.0  # largest norm; longer gradients are scaled down
    keypoint_weight: float = 0.1  # weight of the keypoint loss relative to the class loss
    sigma_px: float = 1.5  # sigma of the keypoints' Gaussian targets
    class_weights: tuple[float, ...] | None = None  # in the cross-entropy; None: all are the same


class ExtraLoss(Protocol):
    """A loss in addition to the labeled one, for methods that also use unlabeled images."""

    def loss(self, network: UNet) -> Tensor:
        """The loss at this step, a scalar."""

    def after_step(self, network: UNet) -> None:
        """Called after each update of the network."""


def fit(
    config: UNetTrainConfig,
    network_config: UNetConfig,
    seed: int,
    batches: Iterator[Samples],
    extra: Callable[[UNet], ExtraLoss] | None = None,
    watch: Callable[[int, UNet], None] = lambda step, network: None,
    variation: Variation | None = None,
    start: UNet | None = None,
) -> UNet:
    """Trains a new network, or a copy of `start`; `watch` is called after every step, with steps
    counted from 1.

    The seed decides the initial weights and the augmentation, but not `batches` and `extra`.
    """
    torch.manual_seed(seed)
    network = copy.deepcopy(start) if start else UNet(network_config)
    source = torch.Generator().manual_seed(seed)
    term = extra(network) if extra else None
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(config, step))
    with trange(1, config.steps + 1, unit="step") as bar:
        for step in bar:
            samples = varied(next(batches), source, variation)
            network.train()
            loss = labeled_loss(network(samples.images), samples, config)
            total = loss + term.loss(network) if term else loss
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_norm)
            optimizer.step()
            schedule.step()
            if term:
                term.after_step(network)
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            watch(step, network)
    network.eval()
    return network


def _rate(config: UNetTrainConfig, step: int) -> float:
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    return 0.5 + 0.5 * math.cos(
        math.pi * (step - config.warm_up) / max(config.steps - config.warm_up, 1)
    )


def labeled_loss(prediction: UNetOutput, samples: Samples, config: UNetTrainConfig) -> Tensor:
    """Cross-entropy of the classes at each pixel, and of each keypoint's heatmap over all pixels,
    weighted by the keypoint's confidence."""
    weights = None if config.class_weights is None else torch.tensor(config.class_weights)
    classes = F.cross_entropy(prediction.classes, samples.masks.long(), weights)
    target = gaussians(samples.keypoints, samples.masks.shape[1:], config.sigma_px)
    log_likelihood = prediction.heatmaps.flatten(2).log_softmax(dim=2)
    misfit = -(target.flatten(2) * log_likelihood).sum(dim=2)
    trust = samples.keypoints[..., 2]
    keypoints = (misfit * trust).sum() / trust.sum().clamp(min=1)
    return classes + config.keypoint_weight * keypoints


def balanced_weights(masks: Tensor, classes: int) -> tuple[float, ...]:
    """Class weights for masks uint8 [n, H, W]: 1 / ln(1.02 + p) for a class that has the share p of
    the pixels, up to 50 for a rare one (Paszke et al., ENet, 2016, arXiv 1606.02147); scaled to a
    mean of 1 over the pixels."""
    share = torch.bincount(masks.ravel().long(), minlength=classes) / masks.numel()
    weights = 1 / torch.log(1.02 + share)
    return tuple((weights / (weights * share).sum()).tolist())


def gaussians(keypoints: Tensor, size: torch.Size, sigma_px: float) -> Tensor:
    """Gaussian around each keypoint that sums to 1 over the pixels: [n, K, H, W]."""
    height, width = size
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = (x - keypoints[..., :1]).square() / (-2 * sigma_px**2)
    down = (y - keypoints[..., 1:2]).square() / (-2 * sigma_px**2)
    return across.softmax(dim=2)[:, :, None] * down.softmax(dim=2)[..., None]
