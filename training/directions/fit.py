"""Drawn samples -> a score: from w to how likely a sample meets a predicate.

Few samples meet a rare predicate, but all of them tell how each statistic in it depends on w. So
for each statistic v the network learns one value s(w) and levels c(t), such that

    P(v >= t | w) = sigmoid(s(w) - c(t))

for thresholds t from common to rare, those of the predicate among them (ordinal regression). Which
samples were drawn depends on w alone, so P(v | w) is the same among them as among all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from bundle.manifest import Bound
from bundle.proposals import Score
from engines.content import ContentPredicate
from training.directions.draws import Draw

INF = math.inf
MEMBERS = 8  # networks whose scores are averaged, each of a sample with replacement
HIDDEN = 32  # units of each
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 400, 512, 3e-3, 1e-2
LEVELS = np.geomspace(0.5, 0.004, 8)  # shares of samples beyond a threshold, at either end


@dataclass(frozen=True)
class _Statistic:
    """One column of the content, and the thresholds that its levels are learned at."""

    values: NDArray[np.float32]  # [n]
    thresholds: NDArray[np.float32]  # [T], ascending

    def reached(self) -> NDArray[np.bool_]:
        """Whether each sample has at least each threshold, [n, T]."""
        return np.asarray(self.values[:, None] >= self.thresholds)

    def level(self, threshold: float) -> int:
        """Number of the threshold."""
        return int(np.searchsorted(self.thresholds, np.float32(threshold)))


def score_from_draws(
    draws: Sequence[Draw], predicate: ContentPredicate, seed: int
) -> tuple[Score, list[list[Bound]]]:
    """The score of a predicate, and the bounds on its outputs that mean the predicate."""
    w = np.concatenate([draw.w for draw in draws])
    content = np.concatenate([draw.content for draw in draws])
    names = sorted(predicate.columns)
    # A count of pixels is from 0 to `pixels` anyway.
    ends = {name: (0, predicate.pixels) if name.kind == "share" else (-INF, INF) for name in names}
    boxes = [
        {
            output: _thresholds(box[predicate.columns[name]], ends[name])
            for output, name in enumerate(names)
            if predicate.columns[name] in box
        }
        for box in predicate.region
    ]
    statistics = [
        _statistic(
            content[:, predicate.columns[name]],
            [end for box in boxes for end in box.get(output, ()) if end is not None],
        )
        for output, name in enumerate(names)
    ]
    mean, deviation = w.mean(axis=0), np.maximum(w.std(axis=0), np.float32(1e-6))
    features = torch.from_numpy((w - mean) / deviation)
    layers, levels = _trained(features, statistics, seed)

    def bound(output: int, thresholds: tuple[float | None, float | None]) -> Bound:
        low, high = (
            None if end is None else float(levels[output][statistics[output].level(end)])
            for end in thresholds
        )
        return Bound(output=output, low=low, high=high)

    bounds = [[bound(output, ends) for output, ends in box.items()] for box in boxes]
    return Score(mean, deviation, layers), bounds


def _thresholds(
    interval: tuple[float, float], ends: tuple[float, float]
) -> tuple[float | None, float | None]:
    """The value that a statistic within the interval has at least, and the one that it does not
    reach; None: any."""
    low, high = interval
    above = float(np.nextafter(np.float32(high), np.float32(INF)))
    return None if low <= ends[0] else low, None if high >= ends[1] else above


def _statistic(values: NDArray[np.float32], thresholds: Sequence[float]) -> _Statistic:
    common = np.quantile(values, np.concatenate([LEVELS, 1 - LEVELS]))
    common = common[common > values.min()]  # which all samples have
    return _Statistic(values, np.unique(np.array([*common, *thresholds], np.float32)))


def _trained(
    features: torch.Tensor, statistics: Sequence[_Statistic], seed: int
) -> tuple[tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...], list[NDArray[np.float64]]]:
    """Layers of the network, and the levels of each statistic.

    features: float32 [n, w_dim].
    """
    random = torch.Generator().manual_seed(seed)
    n, w_dim = features.shape
    reached = [torch.from_numpy(each.reached().astype(np.float32)) for each in statistics]
    shares = [((each.sum(0) + 0.5) / (n + 1)).clamp(1e-4, 1 - 1e-4) for each in reached]

    def drawn(*shape: int, scale: float) -> torch.Tensor:
        return (torch.randn(shape, generator=random) * scale).requires_grad_()

    first, last = (
        drawn(MEMBERS, w_dim, HIDDEN, scale=(2 / w_dim) ** 0.5),
        drawn(MEMBERS, HIDDEN, len(statistics), scale=HIDDEN**-0.5),
    )
    bias = torch.zeros(MEMBERS, 1, HIDDEN, requires_grad=True)
    levels = [(-torch.logit(share)).repeat(MEMBERS, 1).requires_grad_() for share in shares]
    entropies = [-(s * s.log() + (1 - s) * (1 - s).log()) for s in shares]
    optimizer = torch.optim.AdamW(
        [
            {"params": [first, last], "weight_decay": WEIGHT_DECAY},
            {"params": [bias, *levels], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    bags = torch.randint(n, (MEMBERS, n), generator=random)
    for _ in range(STEPS):
        rows = bags.gather(1, torch.randint(n, (MEMBERS, BATCH), generator=random))  # [M, B]
        hidden = torch.relu(torch.bmm(features[rows], first) + bias)
        scores = torch.bmm(hidden, last)  # [M, B, K]
        loss = torch.zeros(())
        for k, (level, entropy) in enumerate(zip(levels, entropies, strict=True)):
            logits = scores[:, :, k, None] - level[:, None]
            losses = binary_cross_entropy_with_logits(logits, reached[k][rows], reduction="none")
            loss = loss + (losses.mean(dim=(0, 1)) / entropy).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        weights = first.permute(1, 0, 2).reshape(w_dim, MEMBERS * HIDDEN)
        outputs = last.reshape(MEMBERS * HIDDEN, len(statistics)) / MEMBERS
        zeros = torch.zeros(len(statistics))
        layers = tuple(
            (a.numpy().astype(np.float32), b.numpy().astype(np.float32))
            for a, b in ((weights, bias.reshape(-1)), (outputs, zeros))
        )
        return layers, [level.mean(0).double().numpy() for level in levels]
