"""Which failures are worth another try, when, and until when."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from dataclasses import dataclass

from labelmint.errors import Exhausted, RpcError, TimedOut, Unreachable

MOST_S, FACTOR, JITTER = 2.0, 2.0, 0.2  # of the waits between tries
_log = logging.getLogger("labelmint")


@dataclass(frozen=True)
class Patience:
    """How long failures that may pass are waited out."""

    connect_s: float = 2.0  # until a call is answered for the first time
    reconnect_s: float = 60.0  # of a stream that got messages, since its last call failed
    silence_s: float = 30.0  # without a message, until a stream is asked for anew; servers send
    # at least a heartbeat every second
    first_wait_s: float = 0.1  # before the second try; doubles up to 2 s


class Reconnects:
    """Counts the tries again of all calls of a client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def record(self, level: int, error: RpcError, delay_s: float, where: str) -> None:
        """One more, with a line in the log."""
        with self._lock:
            self.count += 1
            count = self.count
        _log.log(level, "%s; %s in %.1f s (reconnect %d)", error, where, delay_s, count)


class Retries:
    """The tries of one call or stream; `stop` ends its waits from another thread."""

    def __init__(
        self,
        patience: Patience,
        reconnects: Reconnects,
        deadline: float = math.inf,
        stop: threading.Event | None = None,
    ) -> None:
        """`deadline` is on time.monotonic's clock."""
        self._patience, self._reconnects, self._deadline = patience, reconnects, deadline
        self._stop = stop or threading.Event()
        self._allowed_s = patience.connect_s
        self._log_level = logging.INFO  # a first contact that fails is about to be an error
        self._failing_since: float | None = None
        self._wait_s = self._patience.first_wait_s

    def progressed(self) -> None:
        """An answer came: failures from here on are new ones."""
        self._allowed_s, self._log_level = self._patience.reconnect_s, logging.WARNING
        self._failing_since = None
        self._wait_s = self._patience.first_wait_s

    def wait(self, error: RpcError, where: str) -> None:
        """Returns when it is time to try again; `where` says for the log where to go on.

        Raises the error when it will not pass, or not in time; TimedOut at the deadline.
        """
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        delay_s = self._wait_s * random.uniform(1 - JITTER, 1 + JITTER)
        delay_s = max(delay_s, error.retry_after_s or 0.0)
        patient_until = self._failing_since + self._allowed_s
        if not _may_pass(error) or now + delay_s > patient_until or self._stop.is_set():
            raise error
        if now + delay_s > self._deadline:
            raise TimedOut(f"the deadline of the stream passed: {error}", "DEADLINE_EXCEEDED")
        self._wait_s = min(self._wait_s * FACTOR, MOST_S)
        self._reconnects.record(self._log_level, error, delay_s, where)
        if self._stop.wait(delay_s):
            raise error


def _may_pass(error: RpcError) -> bool:
    # A message over a size limit is RESOURCE_EXHAUSTED, too, but nobody says to try again.
    limited = isinstance(error, Exhausted) and error.retry_after_s is not None
    return isinstance(error, Unreachable) or limited
