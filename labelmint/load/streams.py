"""Closed loop: streams that are read as fast as they come, and where they stall.

Enter: opened calls. Leave: figures over a window of time after the warm-up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labelmint.errors import LabelmintError, RpcError
from labelmint.load.calls import Calls
from labelmint.load.timing import Percentiles, Stalls, joined_stalls, percentiles_of, stalls_of
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.merge import ShardReader, batches_from_readers
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects

PREFETCH_BYTES = 64 << 20  # as Client has it
_LOOK_S = 0.05  # between two looks at whether all streams have ended


@dataclass(frozen=True)
class StreamPlan:
    """How to read."""

    queries: Sequence[pb.SampleQuery]  # one for each stream
    batch_size: int
    warmup_s: float  # batches that come before are left out of the figures
    duration_s: float  # after the warm-up
    stall_s: float  # a longer gap between two batches of a stream is a stall


@dataclass(frozen=True)
class StreamFigures:
    """What the streams brought after the warm-up."""

    streams: int
    batches: int
    samples: int
    elapsed_s: float
    samples_per_s: float
    bytes_per_s: float  # of messages on the wire, before gRPC's framing
    first_batch_s: Percentiles | None  # from a stream's opening; None: no batch came
    stalls: Stalls
    failed: int  # streams that ended before the time was up
    errors: dict[str, int]  # those by gRPC status
    interrupted: bool


@dataclass(eq=False)
class _Reading:
    """What one stream's thread saw."""

    opened: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)  # bytes since the batch before
    error: str = ""  # why it ended early
    fault: Exception | None = None  # ours, to be raised


def measure_streams(
    calls: Calls, plan: StreamPlan, progress: Callable[[float], object]
) -> StreamFigures:
    """Reads every query of a plan until the time is up, then ends all calls.

    Args:
        calls: the connection; of no use afterwards.
        plan: what and how long.
        progress: is told how many more seconds of the plan have passed.

    A KeyboardInterrupt ends it early: the figures are of what was measured so far.
    """
    readings = [_Reading() for _ in plan.queries]
    threads = [
        threading.Thread(target=_read, args=(calls, query, plan.batch_size, reading))
        for query, reading in zip(plan.queries, readings, strict=True)
    ]
    began = time.perf_counter()
    interrupted = False
    try:
        for thread in threads:
            thread.start()
        _wait(threads, plan.warmup_s + plan.duration_s, progress)
    except KeyboardInterrupt:
        interrupted = True
    ended = time.perf_counter()
    calls.end()
    for thread in threads:
        if thread.ident is not None:  # started
            thread.join()
    return _figures(plan, readings, began + plan.warmup_s, ended, interrupted)


def _wait(
    threads: Sequence[threading.Thread], seconds: float, progress: Callable[[float], object]
) -> None:
    began = told = time.perf_counter()
    while (left := began + seconds - time.perf_counter()) > 0:
        if not any(thread.is_alive() for thread in threads):
            return
        time.sleep(min(left, _LOOK_S))
        now = time.perf_counter()
        progress(min(now, began + seconds) - told)
        told = now


def _read(calls: Calls, query: pb.SampleQuery, batch_size: int, reading: _Reading) -> None:
    received = told = 0  # bytes; the first is written by the prefetch's thread alone

    def weigh(message_bytes: int) -> None:
        nonlocal received
        received += message_bytes

    def open_call(resumed: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        return OpenedCall(calls.stream(resumed, weigh), calls.target)

    reading.opened = time.perf_counter()
    try:
        source = ResumingStream(open_call, query, Patience(), Reconnects())
        reader = ShardReader(Prefetch(source, PREFETCH_BYTES), query.start_index)
        for batch in batches_from_readers([reader], batch_size, query):
            reading.arrivals.append(time.perf_counter())
            reading.samples.append(len(batch))
            reading.weights.append(received - told)
            told += reading.weights[-1]
        reading.error = "OK"  # an endless stream has ended
    except LabelmintError as error:
        if not calls.ended.is_set():
            code = error.code if isinstance(error, RpcError) else ""
            reading.error = code or type(error).__name__
    except Exception as error:
        reading.fault = error


def _figures(
    plan: StreamPlan,
    readings: Sequence[_Reading],
    begin: float,
    end: float,
    interrupted: bool,
) -> StreamFigures:
    for reading in readings:
        if reading.fault:
            raise reading.fault
    elapsed_s = max(0.0, end - begin)
    inside = [
        (samples, weight)
        for reading in readings
        for moment, samples, weight in zip(
            reading.arrivals, reading.samples, reading.weights, strict=True
        )
        if begin <= moment <= end
    ]
    samples, weight = sum(each[0] for each in inside), sum(each[1] for each in inside)
    errors = Counter(reading.error for reading in readings if reading.error)
    return StreamFigures(
        streams=len(readings),
        batches=len(inside),
        samples=samples,
        elapsed_s=elapsed_s,
        samples_per_s=samples / elapsed_s if elapsed_s else 0.0,
        bytes_per_s=weight / elapsed_s if elapsed_s else 0.0,
        first_batch_s=percentiles_of(
            [reading.arrivals[0] - reading.opened for reading in readings if reading.arrivals]
        ),
        stalls=joined_stalls(
            [stalls_of(reading.arrivals, begin, end, plan.stall_s) for reading in readings]
        ),
        failed=sum(errors.values()),
        errors=dict(sorted(errors.items())),
        interrupted=interrupted,
    )
