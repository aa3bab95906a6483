"""Outputs of the members at P pixels -> labels and uncertainty at those pixels, in float32.

Members arrive one after another and only sums are stored, so memory does not grow with the size
of the ensemble.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph.filter import zero_of_finite
from nets.labels import Measure

# Probabilities of the mixture are clamped to [EPS, 1 - EPS] in the log, as in DatasetGAN's code.
EPS = torch.finfo(torch.float32).eps


def sum_and_count(terms: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Sum of the terms, and their number.

    All terms are computed before the first addition. ONNX Runtime orders nodes by walking the graph
    backwards along the latest inputs first; in this order it finishes each member, and frees its
    memory, before the next member starts.
    """
    computed = list(terms)
    value = computed[0] if computed else torch.empty(0)
    for term in computed[1:]:
        value = value + term
    return value, len(computed)


class _LogOfEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.log(x)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        alone = g.op("Unsqueeze", x, g.op("Constant", value_t=torch.tensor([-1])))
        return g.op("ReduceLogSum", alone, axes_i=[-1], keepdims_i=0).setType(x.type())


def log_of_each(x: Tensor) -> Tensor:
    """The logarithm of each element, which does not depend on the element's place in the tensor.

    The graph has ReduceLogSum over single elements in place of Log: on the CPU, ONNX Runtime
    computes Log by other instructions at the borders between its threads' parts, which differ in
    the last bit. So scores of one sample differed between batches.
    """
    result: Tensor = _LogOfEach.apply(x)  # type: ignore[no-untyped-call]
    return result


class Consensus(nn.Module):
    """Members' logits [N, P, C] -> majority class [N, P] as float32, and its uncertainty [N, P].

    The class is the one that most members have as their best class, ties to the smallest id. The
    uncertainty (None unless `scored`) is of the mean distribution, the mixture, by `measure`:

        jensen_shannon    its entropy less the mean entropy of the members, nats
        entropy           its entropy, nats
        least_confidence  1 less its largest probability

    As in DatasetGAN's code, the mixture is renormalized and clamped in the log, and the members'
    log-softmax is not clamped: where all members agree with certainty the divergence is 1.2e-7.

    Example: three members vote for classes 1, 1 and 3 of 4. The votes are (0, 2, 0, 1); times 4,
    less the class id, they are (0, 7, -2, 1): class 1.
    """

    one_hot: Tensor
    ids: Tensor

    def __init__(self, classes: int, measure: Measure = "jensen_shannon") -> None:
        super().__init__()
        self.measure = measure
        self.register_buffer("one_hot", torch.eye(classes))
        self.register_buffer("ids", torch.arange(classes, dtype=torch.float32))

    def forward(self, members: Iterable[Tensor], scored: bool) -> tuple[Tensor, Tensor | None]:
        sums, count = sum_and_count(self._terms(logits, scored) for logits in members)
        # Sums over the members, each [N, P, C]: votes; if scored p, and for the divergence p log p.
        votes, *rest = self._split(sums, scored)
        # votes * C - id makes all values differ: runtimes do not agree on which of equal maxima
        # argmax returns.
        mask = (votes * self.ids.shape[0] - self.ids).argmax(dim=-1).to(torch.float32)
        return mask, self._uncertainty(rest, count) if rest else None

    def _uncertainty(self, sums: list[Tensor], count: int) -> Tensor:
        """Sums of p, and of p log p for the divergence, over `count` members -> [N, P]."""
        total = sums[0].sum(dim=-1, keepdim=True)
        if self.measure == "least_confidence":
            # The total carries a NaN; which maximum a runtime finds beside a NaN is its own affair.
            return 1 - sums[0].amax(dim=-1) / total[..., 0]
        mixture = sums[0] / total
        negative_entropy = mixture * log_of_each(mixture.clamp(EPS, 1 - EPS))
        if self.measure == "jensen_shannon":
            return (sums[1] / count - negative_entropy).sum(dim=-1)
        return negative_entropy.sum(dim=-1) * -1  # the list of operators lacks Neg

    def _terms(self, logits: Tensor, scored: bool) -> Tensor:
        """One-hot vote [N, P, C]; if scored then p, and p log p for the divergence, concatenated:
        [2 N, P, C] or [3 N, P, C]."""
        vote = F.embedding(logits.argmax(dim=-1), self.one_hot)
        if not scored:
            return vote
        # log p = x - max - log(sum(exp(x - max))), spelled out: TensorRT's parser turns LogSoftmax
        # into Log(Softmax), which is 0 * -inf = NaN for logits more than 88 below the maximum.
        shifted = logits - logits.amax(dim=-1, keepdim=True)
        exponentials = torch.exp(shifted)
        normalizer = exponentials.sum(dim=-1, keepdim=True)
        p = exponentials / normalizer
        if self.measure != "jensen_shannon":
            return torch.cat([vote, p])
        return torch.cat([vote, p, p * (shifted - log_of_each(normalizer))])

    def _split(self, sums: Tensor, scored: bool) -> list[Tensor]:
        """The sums that `_terms` concatenated."""
        if not scored:
            return [sums]
        terms = 3 if self.measure == "jensen_shannon" else 2
        parts = sums.reshape(terms, -1, sums.shape[1], self.ids.shape[0])
        return [parts[i] for i in range(terms)]


def mean_and_variance(members: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Members' values [N, P, K] -> their mean [N, P, K], and variance [N, P] as mean over K.

    The variance is over the members, divided by their number. Both are computed from sums of
    differences from the first member, because E[x^2] - E[x]^2 loses precision by cancellation.

    Example: values 5, 8, 5 of three members. The differences from 5 are 3 and 0: mean shift 1, mean
    square 3, so the mean is 5 + 1 = 6 and the variance 3 - 1 = 2.
    """
    rest = iter(members)
    first = next(rest)

    def terms() -> Iterator[Tensor]:
        for values in rest:
            step = values - first
            yield torch.cat([step, step * step])

    sums, count = sum_and_count(terms())
    if count == 0:
        return first, zero_of_finite(first.sum(dim=-1))
    parts = sums.reshape(2, -1, *first.shape[1:])
    shift, square = parts[0] / (count + 1), parts[1] / (count + 1)
    return first + shift, (square - shift * shift).mean(dim=-1)


class PointsFromHeatmaps(nn.Module):
    """Heatmaps [N, K, H, W] -> keypoints [N, K, 3]: x, y in pixels (centers at +0.5), confidence.

    The peak is the first maximum in row-major order, and its value is the confidence. The position
    is the centroid of the positive values in the square of pixels within `window_px` of the peak.
    """

    pixels: Tensor
    columns: Tensor
    rows: Tensor

    def __init__(self, height: int, width: int, window_px: int) -> None:
        super().__init__()
        self.window_px = window_px
        self.register_buffer("pixels", torch.arange(height * width, dtype=torch.float32))
        self.register_buffer("columns", torch.arange(width, dtype=torch.float32))
        self.register_buffer("rows", torch.arange(height, dtype=torch.float32))

    def forward(self, heatmaps: Tensor) -> Tensor:
        k, extent, width = heatmaps.shape[1], self.pixels.shape[0], self.columns.shape[0]
        flat = heatmaps.reshape(-1, k, extent)
        peak = flat.amax(dim=2, keepdim=True)
        # The smallest pixel number of a maximum; exact in float32, there are under 2**24 pixels.
        beyond = (flat < peak).to(torch.float32) * extent
        first = (self.pixels + beyond).amin(dim=2, keepdim=True)  # [N, K, 1]
        peak_y = torch.floor((first + 0.5) / width)
        peak_x = first - peak_y * width
        dx, dy = self.columns - peak_x, self.rows - peak_y  # [N, K, W], [N, K, H]
        near_x = (dx.abs() <= self.window_px).to(torch.float32)
        near_y = (dy.abs() <= self.window_px).to(torch.float32)
        mass = torch.relu(heatmaps) * near_y[:, :, :, None] * near_x[:, :, None, :]
        by_column, by_row = mass.sum(dim=2), mass.sum(dim=3)
        # A heatmap without positive values has no mass; its keypoint is the peak itself.
        total = by_column.sum(dim=2, keepdim=True).clamp(min=1e-30)
        x = peak_x + 0.5 + (by_column * dx).sum(dim=2, keepdim=True) / total
        y = peak_y + 0.5 + (by_row * dy).sum(dim=2, keepdim=True) / total
        return torch.cat([x, y, peak], dim=2)
