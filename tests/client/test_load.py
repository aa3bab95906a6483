"""Load: the arithmetic against literal references, and every request accounted for."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.fake import FakeOptions
from labelmint.cli import main
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
from tests.client.scripted_service import ScriptedService
from tests.service.harness import FakeModel, served

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
        assert self.may_answer.wait(30)
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


def bench(folder: Path, port: int, *arguments: str) -> tuple[int, dict[str, Any]]:
    out = folder / "figures.json"
    target = f"localhost:{port}"
    code = main(["bench", "--target", target, "--json", str(out), *arguments])
    document: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return code, document["figures"]


def slow_server(seconds: float, **options: Any) -> FakeModel:
    """An engine that makes one sample at a time."""
    return FakeModel(options=FakeOptions(seconds_per_run=seconds, **options), batch_sizes=(1,))


def test_a_server_that_cannot_keep_up_shows_it_in_the_latency(tmp_path: Path) -> None:
    with served([slow_server(0.05)]) as server:
        code, figures = bench(
            tmp_path, server.server.port, "--rate", "40", "--arrivals", "fixed",
            "--duration", "1", "--warmup", "0.25",
        )  # fmt: skip
    assert code == 0
    assert figures["scheduled"] == 40
    assert figures["answered"] + figures["dropped"] + figures["failed"] == 40
    assert (figures["answered"], figures["errors"]) == (40, {})
    # 50 requests of 0.05 s one after another; the last one was due after 1.225 s.
    assert figures["latency_s"]["max"] >= 50 * 0.05 - 1.225
    for name, latency in figures["latency_s"].items():
        assert latency >= figures["service_s"][name]
    assert figures["samples_per_s"] <= 20  # what the engine can do
    assert figures["bytes_per_s"] > 16 * 16 * 3 * figures["samples_per_s"]


def test_a_bound_on_requests_in_flight_drops_what_the_server_cannot_take(tmp_path: Path) -> None:
    with served([slow_server(0.1)]) as server:
        code, figures = bench(
            tmp_path, server.server.port, "--rate", "40", "--arrivals", "fixed",
            "--duration", "1", "--warmup", "0", "--in-flight", "1",
        )  # fmt: skip
    assert code == 0
    assert figures["scheduled"] == figures["answered"] + figures["dropped"] == 40
    assert 1 <= figures["answered"] <= 11  # one at a time, each of 0.1 s or more


def test_failures_of_a_server_are_counted_not_raised(tmp_path: Path) -> None:
    with served([slow_server(0.0, fail_after_runs=6)]) as server:
        _, figures = bench(
            tmp_path, server.server.port, "--rate", "30", "--arrivals", "fixed",
            "--duration", "1", "--warmup", "0",
        )  # fmt: skip
    assert figures["scheduled"] == figures["answered"] + figures["failed"] == 30
    assert figures["failed"] == sum(figures["errors"].values()) >= 1


def test_streams_are_shards_read_in_whole_batches(
    tmp_path: Path, capsys: Captured, target: str, service: ScriptedService
) -> None:
    port = int(target.rpartition(":")[2])
    code, figures = bench(
        tmp_path, port, "--streams", "3", "--batch-size", "5", "--duration", "0.5",
        "--warmup", "0.1", "--start-index", "7", "--output", "mask", "--codec", "raw",
    )  # fmt: skip
    assert code == 0
    first, *queries = service.queries
    assert (first.count, list(first.outputs)) == (1, list(queries[0].outputs))
    assert sorted((q.shard_index, q.num_shards, q.start_index) for q in queries) == [
        (0, 3, 7), (1, 3, 7), (2, 3, 7),
    ]  # fmt: skip
    assert figures["samples"] == 5 * figures["batches"] > 0
    assert (figures["streams"], figures["failed"], figures["interrupted"]) == (3, 0, False)
    assert "samples/s" in capsys.readouterr().out
    deadline = time.monotonic() + 10
    while service.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.running == 0


def test_gaps_between_batches_are_stalls(tmp_path: Path) -> None:
    with served([slow_server(0.3)]) as server:
        code, figures = bench(
            tmp_path, server.server.port, "--streams", "1", "--batch-size", "1",
            "--duration", "1", "--warmup", "0", "--stall", "0.1",
        )  # fmt: skip
    assert code == 0
    # At most four batches of 0.3 s fit, and leave five gaps of which one is 0.2 s or more.
    assert figures["batches"] <= 4
    assert figures["stalls"]["count"] >= 1
    assert figures["stalls"]["longest_s"] >= 0.2
    assert 0.2 <= figures["stalls"]["share"] <= 1


@pytest.mark.parametrize("mode", [("--rate", "20"), ("--streams", "2")])
def test_an_interrupt_prints_what_was_measured_and_is_130(
    tmp_path: Path, mode: tuple[str, str], target: str, service: ScriptedService
) -> None:
    out = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "labelmint", "bench", "--target", target, *mode,
        "--duration", "600", "--warmup", "0", "--json", str(out),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(service.queries) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert "samples/s" in said
    figures = json.loads(out.read_text("utf-8"))["figures"]
    assert figures["interrupted"] and figures["samples_per_s"] > 0
    assert complained.splitlines()[-1] == "labelmint: interrupted"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--rate", "1", "--streams", "1"], 2, "exclude each other"),
        (["--rate", "1", "--stall", "2"], 2, "--stall has no meaning with --rate"),
        (["--in-flight", "3"], 2, "--in-flight has no meaning with --streams"),
        (["--rate", "0"], 2, "0<x<=100000"),
        (["--rate", "nan"], 2, "nan is not a number"),
        (["--duration", "nan"], 2, "nan is not a number"),
        (["--duration", "inf"], 2, "0<x<=604800"),
        (["--rate", "100000", "--duration", "604800"], 2, "over 10000000 requests"),
        (["--keep-fraction", "2"], 2, "keep_fraction 2.0"),
        (["--class-index", "3"], 4, "class"),
        (["--model", "other"], 4, "other"),
        (["--json", "nowhere/figures.json"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    capsys: Captured, arguments: list[str], code: int, word: str
) -> None:
    with served() as server:
        target = f"localhost:{server.server.port}"
        assert main(["bench", "--target", target, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err.splitlines()[-1]


def test_no_server_is_3(capsys: Captured) -> None:
    assert main(["bench", "--target", "localhost:1", "--rate", "5"]) == 3
    assert "unreachable" in capsys.readouterr().err
