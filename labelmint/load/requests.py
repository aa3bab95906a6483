"""Latency test (open loop): sends requests at given times, even if earlier ones are unanswered.

Enter: the times at which requests are due, and a function that sends one. Leave: figures.

Latency counts from the time a request was due, not from the time it was sent. A server that falls
behind, or a machine that sends late, therefore cannot hide the wait:

    due         sent                 answered
     |-----------|----------------------|
     | lateness  |       service        |
     |------------- latency ------------|
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from labelmint.errors import LabelmintError, RpcError
from labelmint.load.calls import Payload
from labelmint.load.timing import Percentiles, Seconds, percentiles_of


@dataclass(frozen=True, eq=False)
class RequestPlan:
    """When to send requests; times are in seconds from the start."""

    due_s: Seconds  # float64 [n], ascending
    warmup_s: float  # requests due before it are sent, but not counted
    max_in_flight: int  # a request that is due while this many are unanswered is dropped


@dataclass(frozen=True)
class RequestFigures:
    """Results of the counted requests: scheduled = answered + dropped + failed."""

    scheduled: int
    answered: int
    dropped: int  # not sent, because max_in_flight requests were unanswered
    failed: int
    errors: dict[str, int]  # number of failed requests by gRPC status
    elapsed_s: float  # from the end of the warm-up to the last answer
    requests_per_s: float  # answered ones
    samples_per_s: float
    bytes_per_s: float  # bytes of serialized messages, without the framing of gRPC
    latency_s: Percentiles | None  # due to answered; None: no request was answered
    service_s: Percentiles | None  # sent to answered
    lateness_s: Percentiles | None  # due to sent, caused by this machine
    interrupted: bool  # by Ctrl-C


@dataclass(eq=False)
class _Records:
    """What the sending threads record; appending to a list needs no lock."""

    latencies: list[float] = field(default_factory=list)  # seconds, as are the next two
    services: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # gRPC statuses
    faults: list[Exception] = field(default_factory=list)  # bugs of this program, raised later


def measure_requests(
    send: Callable[[int], Payload],
    plan: RequestPlan,
    end: Callable[[], None],
    progress: Callable[[float], object],
) -> RequestFigures:
    """Sends every request of a plan from a pool of threads, and measures the answers.

    Example: due_s = [0, 1, 2, 3], warmup_s = 1, max_in_flight = 1, each answer takes 1.5 s.

        second      0     1     2     3     4     5
        request 0   [========]                        warm-up: sent, not counted
        request 1         x                           request 0 is unanswered: dropped
        request 2               [========]            answered, latency 1.5 s
        request 3                     x               request 2 is unanswered: dropped

    The figures have scheduled = 3, answered = 1, dropped = 2, failed = 0.

    A KeyboardInterrupt ends the measurement early; the figures then cover the time before it.

    Args:
        send: sends request number n and waits for its answer; may raise LabelmintError.
        plan: times of the requests.
        end: makes running `send` calls fail soon; called at a KeyboardInterrupt.
        progress: is called with the number of seconds of the plan since its previous call.
    """
    records = _Records()
    free_slots = threading.BoundedSemaphore(plan.max_in_flight)
    scheduled = dropped = 0
    interrupted = False
    start = time.perf_counter()

    def send_in_thread(number: int, due: float, counted: bool) -> None:
        try:
            _send_and_record(send, number, due, records if counted else _Records())
        except Exception as error:
            records.faults.append(error)
        finally:
            free_slots.release()

    with ThreadPoolExecutor(plan.max_in_flight) as pool:
        reported_s = 0.0
        try:
            for number, due_s in enumerate(plan.due_s.tolist()):
                time.sleep(max(0.0, start + due_s - time.perf_counter()))
                counted = due_s >= plan.warmup_s
                scheduled += counted
                if free_slots.acquire(blocking=False):
                    pool.submit(send_in_thread, number, start + due_s, counted)
                else:
                    dropped += counted
                progress(due_s - reported_s)
                reported_s = due_s
            pool.shutdown()  # waits for the last answers
        except KeyboardInterrupt:
            interrupted = True
            end()
    elapsed_s = max(0.0, time.perf_counter() - start - plan.warmup_s)
    if records.faults:
        raise records.faults[0]
    if interrupted:  # the last scheduled request may be neither sent nor dropped
        scheduled = len(records.payloads) + dropped + len(records.errors)
    return _figures_from_records(records, scheduled, dropped, elapsed_s, interrupted)


def _send_and_record(
    send: Callable[[int], Payload], number: int, due: float, records: _Records
) -> None:
    sent = time.perf_counter()
    try:
        payload = send(number)
    except LabelmintError as error:
        code = error.code if isinstance(error, RpcError) else ""
        records.errors.append(code or type(error).__name__)
    else:
        answered = time.perf_counter()
        records.latencies.append(answered - due)
        records.services.append(answered - sent)
        records.payloads.append(payload)
    records.lateness.append(sent - due)


def _figures_from_records(
    records: _Records, scheduled: int, dropped: int, elapsed_s: float, interrupted: bool
) -> RequestFigures:
    payloads = records.payloads
    return RequestFigures(
        scheduled=scheduled,
        answered=len(payloads),
        dropped=dropped,
        failed=len(records.errors),
        errors=dict(sorted(Counter(records.errors).items())),
        elapsed_s=elapsed_s,
        requests_per_s=_per_second(len(payloads), elapsed_s),
        samples_per_s=_per_second(sum(each.samples for each in payloads), elapsed_s),
        bytes_per_s=_per_second(sum(each.wire_bytes for each in payloads), elapsed_s),
        latency_s=percentiles_of(records.latencies),
        service_s=percentiles_of(records.services),
        lateness_s=percentiles_of(records.lateness),
        interrupted=interrupted,
    )


def _per_second(amount: float, elapsed_s: float) -> float:
    return amount / elapsed_s if elapsed_s > 0 else 0.0
