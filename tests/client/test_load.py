"""Load: the arithmetic against literal references, and every request accounted for."""

from __future__ import annotations

import math
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint.errors import MalformedMessage, Refused
from labelmint.load.calls import Payload
from labelmint.load.requests import RequestPlan, measure_requests
from labelmint.load.timing import (
    Stalls,
    fixed_arrivals,
    joined_stalls,
    percentiles_of,
    poisson_arrivals,
    stalls_of,
)
from tests.hangs import HANG_S

Captured = pytest.CaptureFixture[str]
SECONDS = st.floats(0, 1e6, allow_nan=False)


@pytest.mark.parametrize(("rate", "duration_s"), [(10, 1), (3, 2.5), (0.5, 1), (7, 0.1), (1e3, 3)])
def test_fixed_arrivals_are_evenly_spaced(rate: float, duration_s: float) -> None:
    expected = [n / rate for n in range(100_000) if n / rate < duration_s]
    assert fixed_arrivals(rate, duration_s).tolist() == expected


def test_poisson_arrivals_are_drawn_from_the_seed_alone() -> None:
    due = poisson_arrivals(50, 400, seed=3)
    assert np.array_equal(due, poisson_arrivals(50, 400, seed=3))
    assert np.array_equal(due[due < 30], poisson_arrivals(50, 30, seed=3))
    assert not np.array_equal(due, poisson_arrivals(50, 400, seed=4))
    assert due[0] > 0 and due[-1] < 400 and (np.diff(due) > 0).all()
    # 20,000 expected, with a deviation of its root; gaps of an exponential deviate by their mean.
    assert abs(len(due) - 20_000) < 5 * math.sqrt(20_000)
    assert abs(np.diff(due).std() * 50 - 1) < 0.05


@given(st.lists(SECONDS, min_size=1, max_size=300))
def test_percentiles_are_the_smallest_latencies_that_cover_their_share(values: list[float]) -> None:
    found = percentiles_of(values)
    assert found is not None
    for percent, value in ((50, found.p50), (90, found.p90), (95, found.p95), (99, found.p99)):
        covering = [v for v in values if 100 * sum(w <= v for w in values) >= percent * len(values)]
        assert value == min(covering)
    assert found.max == max(values)


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles_of([]) is None


@given(
    st.lists(st.integers(0, 1000), max_size=60),
    st.integers(0, 500),
    st.integers(1, 500),
    st.integers(1, 300),
)
def test_stalls_are_the_long_gaps_with_both_ends(
    arrivals: list[int], begin: int, length: int, threshold: int
) -> None:
    end = begin + length
    moments = [begin, *sorted(each for each in arrivals if begin < each < end), end]
    gaps = [later - sooner for sooner, later in pairwise(moments)]
    long = [gap for gap in gaps if gap > threshold]
    found = stalls_of(sorted(arrivals), begin, end, threshold)
    assert (found.count, found.longest_s) == (len(long), max(gaps))
    assert found.share == pytest.approx(sum(long) / length)


def test_a_stream_that_stops_is_one_long_stall() -> None:
    assert stalls_of([1, 2], 0, 10, 2) == Stalls(1, 8, 0.8)
    assert stalls_of([], 0, 10, 2) == Stalls(1, 10, 1)
    assert stalls_of([], 5, 5, 2) == Stalls(0, 0, 0)
    joined = joined_stalls([Stalls(1, 8, 0.8), Stalls(0, 1, 0)])
    assert joined == Stalls(1, 8, 0.4)


class Sender:
    """Answers, once it may, or fails."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = {int(name[1:]): error for name, error in errors.items()}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.sent: list[int] = []

    def __call__(self, number: int) -> Payload:
        self.sent.append(number)
        assert self.may_answer.wait(HANG_S)
        if number in self.errors:
            raise self.errors[number]
        return Payload(3, 100)


def plan(count: int, warmup_s: float = 0.0, max_in_flight: int = 64) -> RequestPlan:
    return RequestPlan(np.arange(count) / 1000, warmup_s, max_in_flight)


def nothing(*_: object) -> None:
    pass


def test_requests_over_the_bound_are_dropped_and_counted() -> None:
    sender, due = Sender(), 0
    sender.may_answer.clear()

    def progress(seconds: float) -> None:
        nonlocal due
        due += 1
        if due == 10:
            sender.may_answer.set()

    figures = measure_requests(sender, plan(10, max_in_flight=3), nothing, progress)
    assert (figures.scheduled, figures.answered, figures.dropped, figures.failed) == (10, 3, 7, 0)
    assert sorted(sender.sent) == [0, 1, 2]


def test_failures_are_counted_by_status_and_bugs_raised() -> None:
    denied, broken = Refused("no", "PERMISSION_DENIED"), MalformedMessage("bad")
    figures = measure_requests(Sender(n1=denied, n4=denied, n5=broken), plan(8), nothing, nothing)
    assert (figures.scheduled, figures.answered, figures.failed) == (8, 5, 3)
    assert figures.errors == {"MalformedMessage": 1, "PERMISSION_DENIED": 2}
    with pytest.raises(ZeroDivisionError):
        measure_requests(Sender(n2=ZeroDivisionError()), plan(3), nothing, nothing)


def test_the_warm_up_is_sent_and_left_out() -> None:
    sender = Sender()
    figures = measure_requests(sender, plan(10, warmup_s=0.004), nothing, nothing)
    assert len(sender.sent) == 10
    assert (figures.scheduled, figures.answered) == (6, 6)


def test_latency_counts_from_when_a_request_was_due_not_from_when_it_left() -> None:
    def hold_up(seconds: float) -> None:
        if not seconds:  # after the first request, while all others fall due
            time.sleep(0.3)

    figures = measure_requests(Sender(), plan(20), nothing, hold_up)
    assert figures.latency_s and figures.service_s and figures.lateness_s
    assert figures.latency_s.p50 >= 0.28 and figures.lateness_s.p50 >= 0.28
    assert figures.latency_s.p50 >= figures.service_s.p50 + 0.2


def test_an_interrupt_ends_the_calls_and_keeps_what_was_measured() -> None:
    sender, due = Sender(n8=Refused("ended", "CANCELLED"), n9=Refused("ended", "CANCELLED")), 0

    def progress(seconds: float) -> None:
        nonlocal due
        due += 1
        if due == 8:
            while len(sender.sent) < 8:
                time.sleep(0.001)
            sender.may_answer.clear()
        if due == 10:
            while len(sender.sent) < 10:
                time.sleep(0.001)
            raise KeyboardInterrupt

    figures = measure_requests(sender, plan(50), sender.may_answer.set, progress)
    assert figures.interrupted
    assert (figures.scheduled, figures.answered, figures.failed) == (10, 8, 2)
    assert figures.errors == {"CANCELLED": 2}
