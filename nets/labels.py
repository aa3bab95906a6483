"""Outputs of m members -> labels and their uncertainty, as the DatasetGAN release computes them.

DatasetGAN, section 3.3: majority vote, Jensen-Shannon divergence, and the mean of its largest
values as the score of an image. Two other measures of a pixel can take the divergence's place.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# How uncertain a pixel's class is, from the mean p of the members' probabilities of C classes:
#   jensen_shannon    entropy of p less the members' mean entropy: 0 to log(min(m, C)) nats
#   entropy           of p: 0 to log(C) nats
#   least_confidence  1 - max p: 0 to 1 - 1/C, without unit
Measure = Literal["jensen_shannon", "entropy", "least_confidence"]
EPS = 1.1920929e-07  # probabilities of the mixture are clamped to [EPS, 1 - EPS] in the log


def majority(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> class id of most members, ties to the smallest id, uint8 [...]."""
    votes = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=0)
    return votes.argmax(dim=-1).to(torch.uint8)  # torch returns the first maximum


def jensen_shannon(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> divergence [...] in nats: entropy of the mean less mean entropy."""
    log_p = logits.log_softmax(dim=-1)
    return mean_entropy(logits) + (log_p.exp() * log_p).sum(dim=-1).mean(dim=0)


def mean_entropy(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> entropy of the mean of the members' distributions [...], in nats."""
    mean = logits.softmax(dim=-1).mean(dim=0)
    mean = mean / mean.sum(dim=-1, keepdim=True)
    return -(mean * mean.clamp(EPS, 1 - EPS).log()).sum(dim=-1)


def least_confidence(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> 1 less the largest of the classes' mean probabilities, [...]."""
    mean = logits.softmax(dim=-1).mean(dim=0)
    return 1 - mean.amax(dim=-1) / mean.sum(dim=-1)


def class_uncertainty(logits: Tensor, measure: Measure) -> Tensor:
    """Logits [m, ..., C] -> uncertainty of each pixel's class [...], by this measure."""
    match measure:
        case "jensen_shannon":
            return jensen_shannon(logits)
        case "entropy":
            return mean_entropy(logits)
        case "least_confidence":
            return least_confidence(logits)


def member_variance(values: Tensor) -> Tensor:
    """Values [m, ..., K] -> [...]: variance over the members, averaged over the K outputs."""
    return values.var(dim=0, correction=0).mean(dim=-1)


def top_mean(values: Tensor, fraction: float) -> Tensor:
    """Mean of the largest int(fraction * n) of n values, at least one; a scalar."""
    count = max(1, int(values.numel() * fraction))
    return values.flatten().topk(count).values.mean()


def keypoints_from_heatmaps(heatmaps: Tensor, window_px: int) -> Tensor:
    """Mean heatmaps [H, W, K] -> [K, 3]: x, y in pixels (centers at +0.5) and confidence.

    The peak is the first maximum, and its value is the confidence. The position is the centroid of
    the positive values in the square of pixels within `window_px` of the peak, or the peak itself
    if no value is positive.
    """
    return torch.stack([_point(heat, window_px) for heat in heatmaps.unbind(dim=2)])


def _point(heat: Tensor, window_px: int) -> Tensor:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    top, left = max(row - window_px, 0), max(column - window_px, 0)
    window = heat[top : row + window_px + 1, left : column + window_px + 1].double().clamp(min=0)
    total = window.sum()
    if total <= 0:
        return heat.new_tensor([column + 0.5, row + 0.5, heat[row, column]])
    rows, columns = (
        torch.arange(n, dtype=torch.float64, device=heat.device) + 0.5 for n in window.shape
    )
    x = left + (window.sum(dim=0) @ columns) / total
    y = top + (window.sum(dim=1) @ rows) / total
    return torch.stack([x, y, heat[row, column].double()]).to(heat.dtype)
