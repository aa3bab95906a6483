"""Open loop: requests leave when they are due, whether or not earlier ones were answered.

Enter: when requests are due, and what makes one. Leave: figures. Latency counts from the moment
a request was due, so that a server which keeps everybody waiting cannot hide it.
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
    """When to ask."""

    due_s: Seconds  # from the start, ascending
    warmup_s: float  # what is due before is asked, and left out of the figures
    max_in_flight: int  # a request that is due while so many wait is dropped


@dataclass(frozen=True)
class RequestFigures:
    """What came of the requests after the warm-up: scheduled = answered + dropped + failed."""

    scheduled: int
    answered: int
    dropped: int  # never sent: too many were in flight
    failed: int
    errors: dict[str, int]  # failed ones by gRPC status
    elapsed_s: float  # from the end of the warm-up until the last answer
    requests_per_s: float  # answered
    samples_per_s: float
    bytes_per_s: float  # of messages on the wire, before gRPC's framing
    latency_s: Percentiles | None  # from when a request was due; None: none was answered
    service_s: Percentiles | None  # from when it was sent
    lateness_s: Percentiles | None  # from when it was due until it was sent: this machine's part
    interrupted: bool


@dataclass(eq=False)
class _Log:
    """What the threads write; appending needs no lock."""

    latencies: list[float] = field(default_factory=list)
    services: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)  # ours, to be raised


def measure_requests(
    send: Callable[[int], Payload],
    plan: RequestPlan,
    end: Callable[[], None],
    progress: Callable[[float], object],
) -> RequestFigures:
    """Sends every request of a plan.

    Args:
        send: makes the n-th request and waits for the answer; raises LabelmintError.
        plan: when.
        end: makes running sends fail soon; called at a KeyboardInterrupt, after which the
            figures are of what was measured so far.
        progress: is told how many more seconds of the plan have passed.
    """
    log = _Log()
    room = threading.BoundedSemaphore(plan.max_in_flight)
    scheduled = dropped = 0
    interrupted = False
    began = time.perf_counter()

    def ask(number: int, due: float, counted: bool) -> None:
        try:
            _ask(send, number, due, log if counted else _Log())
        except Exception as error:
            log.faults.append(error)
        finally:
            room.release()

    with ThreadPoolExecutor(plan.max_in_flight) as pool:
        passed = 0.0
        try:
            for number, due_s in enumerate(plan.due_s.tolist()):
                time.sleep(max(0.0, began + due_s - time.perf_counter()))
                counted = due_s >= plan.warmup_s
                scheduled += counted
                if room.acquire(blocking=False):
                    pool.submit(ask, number, began + due_s, counted)
                else:
                    dropped += counted
                progress(due_s - passed)
                passed = due_s
            pool.shutdown()
        except KeyboardInterrupt:
            interrupted = True
            end()
    elapsed_s = max(0.0, time.perf_counter() - began - plan.warmup_s)
    if log.faults:
        raise log.faults[0]
    answered, failed = len(log.payloads), len(log.errors)
    if interrupted:  # perhaps between counting a request and sending it
        scheduled = answered + dropped + failed
    return RequestFigures(
        scheduled=scheduled,
        answered=answered,
        dropped=dropped,
        failed=failed,
        errors=dict(sorted(Counter(log.errors).items())),
        elapsed_s=elapsed_s,
        requests_per_s=_per_second(answered, elapsed_s),
        samples_per_s=_per_second(sum(each.samples for each in log.payloads), elapsed_s),
        bytes_per_s=_per_second(sum(each.wire_bytes for each in log.payloads), elapsed_s),
        latency_s=percentiles_of(log.latencies),
        service_s=percentiles_of(log.services),
        lateness_s=percentiles_of(log.lateness),
        interrupted=interrupted,
    )


def _ask(send: Callable[[int], Payload], number: int, due: float, log: _Log) -> None:
    sent = time.perf_counter()
    try:
        payload = send(number)
    except LabelmintError as error:
        code = error.code if isinstance(error, RpcError) else ""
        log.errors.append(code or type(error).__name__)
    else:
        answered = time.perf_counter()
        log.latencies.append(answered - due)
        log.services.append(answered - sent)
        log.payloads.append(payload)
    log.lateness.append(sent - due)


def _per_second(amount: float, elapsed_s: float) -> float:
    return amount / elapsed_s if elapsed_s > 0 else 0.0
