"""Arithmetic of load tests: times at which requests are due, percentiles, stalls.

Enter: rates and measured times in seconds. Leave: times and statistics in seconds. Nothing here
reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of a time in seconds; p90 is the time that 90 % of the calls did not exceed."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Stalls:
    """Gaps between batches that are longer than a threshold."""

    count: int
    longest_s: float  # longest of all gaps, stall or not
    share: float  # share of the observed time that stalls take, 0 to 1


def fixed_arrivals(rate: float, duration_s: float) -> Seconds:
    """Evenly spaced times from 0 on, at which requests are due: float64 [n], under duration_s."""
    due = np.arange(int(np.ceil(rate * duration_s)) + 1) / rate
    return due[due < duration_s]


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> Seconds:
    """Times of a Poisson process, as of many independent callers: float64 [n], under duration_s.

    The times of a longer duration begin with those of a shorter one of the same seed.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    due = np.empty(0)
    while not len(due) or due[-1] < duration_s:
        gaps = random.exponential(1 / rate, 1024)
        due = np.concatenate([due, (due[-1] if len(due) else 0.0) + np.cumsum(gaps)])
    return due[due < duration_s]


def percentiles_of(latencies: Sequence[float]) -> Percentiles | None:
    """Nearest-rank percentiles, each one of the latencies; None without latencies."""
    if not latencies:
        return None
    ordered = sorted(latencies)
    # Integer ranks: with floats, rounding could give the next rank.
    return Percentiles(
        *(ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 90, 95, 99, 100))
    )


def stalls_of(arrivals: Sequence[float], begin: float, end: float, threshold_s: float) -> Stalls:
    """The stalls of one reader between begin and end.

    Args:
        arrivals: times at which batches arrived, ascending; those outside (begin, end) are ignored.
        begin, end: observed interval, on the clock of arrivals. The time before the first batch
            and after the last one are gaps too: a stream that stops is one long stall.
        threshold_s: length in seconds above which a gap is a stall.
    """
    if end <= begin:
        return Stalls(0, 0.0, 0.0)
    inside = [moment for moment in arrivals if begin < moment < end]
    gaps = np.diff([begin, *inside, end])
    long = gaps[gaps > threshold_s]
    return Stalls(len(long), float(gaps.max()), float(long.sum()) / (end - begin))


def joined_stalls(readers: Sequence[Stalls]) -> Stalls:
    """Stalls of all readers together; at least one reader, all observed equally long."""
    return Stalls(
        sum(reader.count for reader in readers),
        max(reader.longest_s for reader in readers),
        sum(reader.share for reader in readers) / len(readers),
    )
