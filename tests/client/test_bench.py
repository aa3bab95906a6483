"""Bench: every request is accounted for, against real servers of a known speed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engines.fake import FakeOptions
from labelmint.cli import main
from tests.client.scripted_service import ScriptedService
from tests.hangs import HANG_S
from tests.interrupts import INTERRUPTIBLE
from tests.service.harness import FakeModel, served

Captured = pytest.CaptureFixture[str]


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
    deadline = time.monotonic() + HANG_S
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
        *INTERRUPTIBLE, sys.executable, "-m", "labelmint", "bench", "--target", target, *mode,
        "--duration", "600", "--warmup", "0", "--json", str(out),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + HANG_S
        while len(service.queries) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, complained
    assert "samples/s" in said
    figures = json.loads(out.read_text("utf-8"))["figures"]
    assert figures["interrupted"] and figures["samples_per_s"] > 0
    assert complained.splitlines()[-1] == "labelmint: interrupted"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--rate", "1", "--streams", "1"], 2, "exclude each other"),
        (["--rate", "1", "--stall", "2"], 2, "--stall has no effect with --rate"),
        (["--in-flight", "3"], 2, "--in-flight has no effect with --streams"),
        (["--start-index", str(2**64 - 1)], 2, "--start-index 18446744073709551615"),
        (["--rate", "1", "--batch-size", "1000000"], 4, "4096"),
        (["--rate", "0"], 2, "0<x<=100000"),
        (["--rate", "nan"], 2, "nan is not a number"),
        (["--duration", "nan"], 2, "nan is not a number"),
        (["--duration", "inf"], 2, "0<x<=604800"),
        (["--rate", "100000", "--duration", "604800"], 2, "over the limit 10000000"),
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
