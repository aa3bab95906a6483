"""Throughput test (closed loop): reads streams as fast as they arrive and records stalls.

Enter: a connection and a plan. Leave: figures of the time after the warm-up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labelmint.errors import LabelmintError, RpcError
from labelmint.load.calls import MeteredConnection
from labelmint.load.timing import Percentiles, Stalls, joined_stalls, percentiles_of, stalls_of
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.merge import ShardReader, batches_from_readers
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects

PREFETCH_BYTES = 64 << 20  # the default of Client
_POLL_S = 0.05  # interval of checks whether all streams have ended


@dataclass(frozen=True)
class StreamPlan:
    """What to read, and for how long."""

    queries: Sequence[pb.SampleQuery]  # one per stream
    batch_size: int
    warmup_s: float  # batches that arrive before its end are not counted
    duration_s: float  # after the warm-up
    stall_s: float  # gap between two batches of a stream above which it is a stall


@dataclass(frozen=True)
class StreamFigures:
    """Figures of all streams together, after the warm-up."""

    streams: int
    batches: int
    samples: int
    elapsed_s: float
    samples_per_s: float
    bytes_per_s: float  # bytes of serialized messages, without the framing of gRPC
    first_batch_s: Percentiles | None  # from the opening of a stream; None: no batch arrived
    stalls: Stalls
    failed: int  # streams that ended before the end of the plan
    errors: dict[str, int]  # number of failed streams by gRPC status
    interrupted: bool  # by Ctrl-C


@dataclass(eq=False)
class _Reading:
    """Record of one stream, written by its thread."""

    opened: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    message_bytes: list[int] = field(default_factory=list)  # received since the previous batch
    error: str = ""  # gRPC status of an early end; empty: the stream ran to the end
    fault: Exception | None = None  # exception other than LabelmintError: a bug, raised later


def measure_streams(
    server: MeteredConnection, plan: StreamPlan, progress: Callable[[float], object]
) -> StreamFigures:
    """Reads every query of a plan for the planned time, then ends all calls.

    A KeyboardInterrupt ends the measurement early; the figures then cover the time before it.

    Args:
        server: connection, which makes no calls afterwards.
        plan: queries and times.
        progress: is called with the number of seconds that passed since its previous call.
    """
    readings = [_Reading() for _ in plan.queries]
    threads = [
        threading.Thread(target=_read, args=(server, query, plan.batch_size, reading))
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
    server.end()
    for thread in threads:
        if thread.ident is not None:  # started
            thread.join()
    return _figures(plan, readings, began + plan.warmup_s, ended, interrupted)


def _wait(
    threads: Sequence[threading.Thread], seconds: float, progress: Callable[[float], object]
) -> None:
    began = reported = time.perf_counter()
    while (left := began + seconds - time.perf_counter()) > 0:
        if not any(thread.is_alive() for thread in threads):
            return
        time.sleep(min(left, _POLL_S))
        now = time.perf_counter()
        progress(min(now, began + seconds) - reported)
        reported = now


def _read(
    server: MeteredConnection, query: pb.SampleQuery, batch_size: int, reading: _Reading
) -> None:
    received = counted = 0  # bytes; only the prefetch's thread writes `received`

    def on_bytes(message_bytes: int) -> None:
        nonlocal received
        received += message_bytes

    def open_call(resumed: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        return OpenedCall(server.stream(resumed, on_bytes), server.target, server.tls)

    reading.opened = time.perf_counter()
    try:
        source = ResumingStream(open_call, query, Patience(), Reconnects())
        reader = ShardReader(Prefetch(source, PREFETCH_BYTES), query.start_index)
        for batch in batches_from_readers([reader], batch_size, query):
            reading.arrivals.append(time.perf_counter())
            reading.samples.append(len(batch))
            reading.message_bytes.append(received - counted)
            counted += reading.message_bytes[-1]
        reading.error = "OK"  # the server ended an endless stream
    except LabelmintError as error:
        if not server.ended.is_set():
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
        (samples, message_bytes)
        for reading in readings
        for moment, samples, message_bytes in zip(
            reading.arrivals, reading.samples, reading.message_bytes, strict=True
        )
        if begin <= moment <= end
    ]
    samples, message_bytes = sum(each[0] for each in inside), sum(each[1] for each in inside)
    errors = Counter(reading.error for reading in readings if reading.error)
    return StreamFigures(
        streams=len(readings),
        batches=len(inside),
        samples=samples,
        elapsed_s=elapsed_s,
        samples_per_s=samples / elapsed_s if elapsed_s else 0.0,
        bytes_per_s=message_bytes / elapsed_s if elapsed_s else 0.0,
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
