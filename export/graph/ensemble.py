"""Members' outputs at some pixels -> label, value and uncertainty at those pixels.

All in float32. Members come one after another and only sums are kept, so that memory does not
grow with the ensemble.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Clamp of probabilities in the mixture's entropy, as in the published release.
EPS = torch.finfo(torch.float32).eps


def total(terms: Iterable[Tensor]) -> tuple[Tensor, int]:
    """The sum of the terms and their number.

    One sum for all that a head needs, and every addition after all terms: ONNX Runtime walks the
    graph backwards along the latest inputs first, so this order makes it finish each member, and
    free its memory, before the next begins.
    """
    drawn = list(terms)
    value = drawn[0] if drawn else torch.empty(0)
    for term in drawn[1:]:
        value = value + term
    return value, len(drawn)


class Consensus(nn.Module):
    """Members' logits [N, P, C], one after another -> class ids as float32 [N, P] and, where
    scored, the Jensen-Shannon divergence of the members in nats [N, P].

    The class is the majority of the members' best classes, ties to the smallest id. The
    divergence is the entropy of the mean distribution less the mean entropy; the mixture is
    renormalised and its logarithm taken of clamped probabilities, the members' entropies come
    from log-softmax unclamped: a unanimous pixel is 1.2e-7.
    """

    one_hot: Tensor
    ids: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("one_hot", torch.eye(classes))
        self.register_buffer("ids", torch.arange(classes, dtype=torch.float32))

    def forward(self, members: Iterable[Tensor], scored: bool) -> tuple[Tensor, Tensor | None]:
        sums, count = total(self._terms(logits, scored) for logits in members)
        votes, probabilities, entropies = self._split(sums) if scored else (sums, None, None)
        # Counts times C less the id: no two values are equal, because no runtime promises which
        # of equal maxima it returns.
        mask = (votes * self.ids.shape[0] - self.ids).argmax(dim=-1).to(torch.float32)
        if probabilities is None or entropies is None:
            return mask, None
        mixture = probabilities / probabilities.sum(dim=-1, keepdim=True)
        of_mixture = mixture * torch.log(mixture.clamp(EPS, 1 - EPS))
        return mask, (entropies / count - of_mixture).sum(dim=-1)

    def _terms(self, logits: Tensor, scored: bool) -> Tensor:
        """A member's vote, probabilities and p log p, one after another: [3 N, P, C]."""
        vote = F.embedding(logits.argmax(dim=-1), self.one_hot)
        if not scored:
            return vote
        p = torch.softmax(logits, dim=-1)
        return torch.cat([vote, p, p * torch.log_softmax(logits, dim=-1)])

    def _split(self, sums: Tensor) -> tuple[Tensor, ...]:
        parts = sums.reshape(3, -1, sums.shape[1], self.ids.shape[0])
        return parts[0], parts[1], parts[2]


def mean_and_variance(members: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Members' values [N, P, K], one after another -> mean [N, P, K], and variance [N, P]: over
    the members (divided by their number), averaged over the K outputs.

    Sums of differences from the first member: E[x^2] - E[x]^2 itself would cancel.
    """
    rest = iter(members)
    first = next(rest)

    def terms() -> Iterator[Tensor]:
        for values in rest:
            step = values - first
            yield torch.cat([step, step * step])

    sums, count = total(terms())
    if count == 0:
        return first, first.sum(dim=-1) * 0
    parts = sums.reshape(2, -1, *first.shape[1:])
    shift, square = parts[0] / (count + 1), parts[1] / (count + 1)
    return first + shift, (square - shift * shift).mean(dim=-1)


class PointsFromHeatmaps(nn.Module):
    """heatmaps [N, K, H, W] -> [N, K, 3]: x, y in pixels (centres at +0.5) and confidence.

    The first maximum in row-major order, then the centroid of the non-negative heatmap within
    `window_px` of it (a square); the confidence is the maximum.
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
        # The least position of a maximum; exact in float32, pixels number less than 2**24.
        later = (flat < peak).to(torch.float32) * extent
        first = (self.pixels + later).amin(dim=2, keepdim=True)  # [N, K, 1]
        peak_y = torch.floor((first + 0.5) / width)
        peak_x = first - peak_y * width
        dx, dy = self.columns - peak_x, self.rows - peak_y  # [N, K, W], [N, K, H]
        near_x = (dx.abs() <= self.window_px).to(torch.float32)
        near_y = (dy.abs() <= self.window_px).to(torch.float32)
        mass = torch.relu(heatmaps) * near_y[:, :, :, None] * near_x[:, :, None, :]
        by_column, by_row = mass.sum(dim=2), mass.sum(dim=3)
        # A heatmap that is nowhere positive has no mass: its point is the peak itself.
        total = by_column.sum(dim=2, keepdim=True).clamp(min=1e-30)
        x = peak_x + 0.5 + (by_column * dx).sum(dim=2, keepdim=True) / total
        y = peak_y + 0.5 + (by_row * dy).sum(dim=2, keepdim=True) / total
        return torch.cat([x, y, peak], dim=2)
