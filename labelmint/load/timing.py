"""The arithmetic of a load test: when requests are due, and what the measured times mean.

Enter: rates and times in seconds. Leave: the same; nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Percentiles:
    """Seconds within which so many per cent of the calls were answered."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Stalls:
    """Gaps between batches that were longer than a reader should wait."""

    count: int
    longest_s: float  # of all gaps, stall or not
    share: float  # of the observed time, spent in stalls


def fixed_arrivals(rate: float, duration_s: float) -> Seconds:
    """When requests are due, evenly spaced from 0 on: float64 [n], all under duration_s."""
    due = np.arange(int(np.ceil(rate * duration_s)) + 1) / rate
    return due[due < duration_s]


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> Seconds:
    """When requests of many independent callers are due: float64 [n], all under duration_s.

    The same seed gives the same times, whatever the duration: a longer one adds to the end.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    due = np.empty(0)
    while not len(due) or due[-1] < duration_s:
        gaps = random.exponential(1 / rate, 1024)
        due = np.concatenate([due, (due[-1] if len(due) else 0.0) + np.cumsum(gaps)])
    return due[due < duration_s]


def percentiles_of(latencies: Sequence[float]) -> Percentiles | None:
    """Nearest-rank percentiles, so that each is a latency that occurred; None of nothing."""
    if not latencies:
        return None
    ordered = sorted(latencies)
    # Ranks in integers: 0.9 * 10 in floats would be one too high.
    return Percentiles(
        *(ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 90, 95, 99, 100))
    )


def stalls_of(arrivals: Sequence[float], begin: float, end: float, threshold_s: float) -> Stalls:
    """The stalls of one reader between begin and end.

    Args:
        arrivals: when batches came, ascending; those outside of begin to end do not count.
        begin, end: observed time, on the clock of arrivals. What passes before the first batch
            and after the last one is a gap as well: a stream that stops is one long stall.
        threshold_s: a longer gap is a stall.
    """
    if end <= begin:
        return Stalls(0, 0.0, 0.0)
    inside = [moment for moment in arrivals if begin < moment < end]
    gaps = np.diff([begin, *inside, end])
    long = gaps[gaps > threshold_s]
    return Stalls(len(long), float(gaps.max()), float(long.sum()) / (end - begin))


def joined_stalls(readers: Sequence[Stalls]) -> Stalls:
    """Those of readers that were observed for the same time: at least one reader."""
    return Stalls(
        sum(reader.count for reader in readers),
        max(reader.longest_s for reader in readers),
        sum(reader.share for reader in readers) / len(readers),
    )
