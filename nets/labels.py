"""Outputs of m members -> labels and their uncertainty, as the DatasetGAN release computes them.

DatasetGAN, section 3.3: majority vote, Jensen-Shannon divergence, and the mean of its largest
values as the score of an image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1.1920929e-07  # probabilities of the mixture are clamped to [EPS, 1 - EPS] in the log


def majority(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> class id of most members, ties to the smallest id, uint8 [...]."""
    votes = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=0)
    return votes.argmax(dim=-1).to(torch.uint8)  # torch returns the first maximum


def jensen_shannon(logits: Tensor) -> Tensor:
    """Logits [m, ..., C] -> divergence [...] in nats: entropy of the mean less mean entropy."""
    log_p = logits.log_softmax(dim=-1)
    mean = log_p.exp().mean(dim=0)
    mean = mean / mean.sum(dim=-1, keepdim=True)
    mixture = -(mean * mean.clamp(EPS, 1 - EPS).log()).sum(dim=-1)
    return mixture + (log_p.exp() * log_p).sum(dim=-1).mean(dim=0)


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
