"""Histogram of uncertainty scores, as positions of bars and ticks.

Enter: scores of kept and of discarded samples, and the threshold between them. Leaves: `Histogram`,
with positions in percent of the plot's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 40
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bar:
    """One bin: kept samples at the bottom, discarded ones stacked on them."""

    left: float  # percent of the plot's width
    width: float
    kept: int  # number of samples
    discarded: int


@dataclass(frozen=True)
class Tick:
    """A label under the plot."""

    left: float  # percent of the plot's width
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars and ticks of the plot."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    tallest: int  # number of samples in the highest bar, at least 1
    threshold: float | None  # percent of the plot's width; None: outside the plot


def histogram_from_scores(kept: Scores, discarded: Scores, threshold: float) -> Histogram | None:
    """Histogram of the finite scores in about BINS equal bins; None without any.

    Args:
        kept, discarded: float32 [n] each.
        threshold: score that becomes an edge between two bins, if it lies within the scores.
    """
    parts = [part[np.isfinite(part)].astype(np.float64) for part in (kept, discarded)]
    both = np.concatenate(parts)
    if not len(both):
        return None
    low, high = float(both.min()), float(both.max())
    # The axis begins at 0 if the lowest score is close to it.
    low = 0.0 if 0 <= low < 0.3 * high else low
    high = high if high > low else low + (abs(low) or 1.0)
    edges = _edges(low, high, threshold)
    counts = [np.histogram(part, edges)[0].tolist() for part in parts]
    low, end = float(edges[0]), float(edges[-1])

    def place(value: float) -> float:
        return 100 * (value - low) / (end - low)

    width = 100 / (len(edges) - 1)
    return Histogram(
        tuple(Bar(n * width, width, *pair) for n, pair in enumerate(zip(*counts, strict=True))),
        tuple(Tick(place(value), f"{value:g}") for value in _round_numbers(low, end)),
        max(map(sum, zip(*counts, strict=True))),
        place(threshold) if low <= threshold <= end else None,
    )


def _edges(low: float, high: float, threshold: float) -> npt.NDArray[np.float64]:
    """Edges of about BINS equal bins; the threshold is an edge if it lies within the range."""
    if not low < threshold <= high:
        return np.linspace(low, high, BINS + 1)
    before = round(BINS * (threshold - low) / (high - low))
    if not before:  # the threshold is close to low: the first bin begins under low
        width = (high - threshold) / (BINS - 1)
        edges = np.linspace(threshold - width, high, BINS + 1)
        edges[1] = threshold
        return edges
    width = (threshold - low) / before
    bins = max(before, math.ceil((high - low) / width))
    edges = np.linspace(low, low + width * bins, bins + 1)
    edges[before] = threshold
    edges[-1] = max(edges[-1], high)  # rounding could put the last edge under the highest score
    return edges


def _round_numbers(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range: four to ten of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (5, 2) if factor * power <= rough), power)
    first, last = math.ceil(low / step), math.floor(high / step)
    # By way of a decimal string, so that 3 * 0.1 is 0.3.
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
