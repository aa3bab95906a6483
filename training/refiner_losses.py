"""The refiner's two losses: be taken for real, and stay with the original."""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.refiner_config import Feature, Regulariser


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of every patch against one verdict, averaged: logits [N, 1, h, w] -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def self_regularisation(refined: Tensor, original: Tensor, config: Regulariser) -> Tensor:
    """The weighted L1 distance of [N, C, H, W] to [N, C, H, W] in the chosen features, a scalar."""
    pairs = zip(features(refined, config.feature), features(original, config.feature), strict=True)
    distance = torch.cat([(a - b).abs().flatten(1) for a, b in pairs], dim=1)  # [N, values]
    if config.reduction == "mean":
        return config.strength * distance.mean()
    if config.reduction == "image-sum":
        return config.strength * distance.sum(dim=1).mean()
    return config.strength * distance.sum()


def features(images: Tensor, feature: Feature) -> tuple[Tensor, ...]:
    """What is compared of [N, C, H, W]: the colours, their mean, or their differences to the
    right and downwards."""
    if feature == "identity":
        return (images,)
    if feature == "colour-mean":
        return (images.mean(dim=1),)
    return images.diff(dim=3), images.diff(dim=2)
