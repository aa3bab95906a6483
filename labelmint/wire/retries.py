"""Which failed calls are tried again, after which wait, and until when.

Enter: typed errors of failed calls. Leave: a wait, or the error where no further try is made.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from dataclasses import dataclass

from labelmint.arguments import real_number
from labelmint.errors import (
    Exhausted,
    RpcError,
    TimedOut,
    Unreachable,
    cancelled_by_server,
    is_loading,
    met_closing_connection,
)

MAX_WAIT_S, WAIT_FACTOR, WAIT_JITTER = 2.0, 2.0, 0.2
_log = logging.getLogger("labelmint")


@dataclass(frozen=True)
class Patience:
    """How long, in seconds, failed calls are tried again before their error is raised."""

    connect_s: float = 2.0  # for a call that was not answered yet
    # For a stream that received messages, counted from its failure; and for a server that answers
    # that it is loading, so that a trainer and its server can be started together.
    reconnect_s: float = 60.0
    # Without any message before a stream is opened anew; servers send a heartbeat every second.
    silence_s: float = 30.0
    first_wait_s: float = 0.1  # before the second try; doubles with each try, up to 2 s

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError: with no wait a client would try as fast as it can, and
        with nan for ever."""
        for name, value in vars(self).items():
            if not real_number(f"patience {name}", value) >= 0:  # also refuses NaN
                raise ValueError(f"patience {name} is {value}; give seconds from 0 up")
        if not 0 < self.first_wait_s < math.inf:
            raise ValueError(
                f"patience first_wait_s is {self.first_wait_s}; give finite seconds over 0"
            )


class Reconnects:
    """Number of repeated calls of one client. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def record(self) -> int:
        """Counts one more; returns the number so far."""
        with self._lock:
            self.count += 1
            return self.count


class Retries:
    """The tries of one call or stream; setting the event `stop` ends its waits."""

    def __init__(
        self,
        patience: Patience,
        reconnects: Reconnects,
        deadline: float = math.inf,
        stop: threading.Event | None = None,
    ) -> None:
        """No try is made after `deadline`, a time on the clock of time.monotonic."""
        self._patience, self._reconnects, self._deadline = patience, reconnects, deadline
        self._stop = stop or threading.Event()
        self._allowed_s = patience.connect_s
        self._log_level = logging.INFO  # without an answer so far: the error is raised soon
        self._failing_since: float | None = None
        self._wait_s = patience.first_wait_s
        self._loading = False  # whether a failure of this row was a server that is loading
        self._heard = False  # whether anything answered this try

    def began(self) -> None:
        """Records that a try begins."""
        self._heard = False

    def answered(self) -> None:
        """Records that a server answers: a failure is waited for longer, and logged as one."""
        self._allowed_s, self._log_level = self._patience.reconnect_s, logging.WARNING
        self._heard = True

    def progressed(self) -> None:
        """Records that an answer brought something: the next failure is the first of a new row."""
        self.answered()
        self._failing_since, self._wait_s = None, self._patience.first_wait_s
        self._loading = False

    def wait(self, error: RpcError, where: str) -> None:
        """Returns when it is time for the next try.

        That is at once, and no reconnect, if the error is the first of a row, of a try that nothing
        answered because it met the end of its connection.

        Args:
            error: how the last try failed.
            where: words for the log: what the next try does.

        Raises:
            RpcError: error itself, where no try can help or patience has run out.
            TimedOut: the deadline comes before the next try.
        """
        now = time.monotonic()
        unseen = self._failing_since is None and not self._heard and met_closing_connection(error)
        if self._failing_since is None:
            self._failing_since = now
        if unseen and now <= self._deadline and not self._stop.is_set():
            _log.info("%s; %s at once", error, where)
            return
        loading, loading_before = is_loading(error), self._loading
        self._loading = loading or loading_before
        allowed_s = self._allowed_s
        if self._loading:
            allowed_s = max(allowed_s, self._patience.reconnect_s)
        delay_s = self._wait_s * random.uniform(1 - WAIT_JITTER, 1 + WAIT_JITTER)
        delay_s = max(delay_s, error.retry_after_s or 0.0)
        patient_until = self._failing_since + allowed_s
        if not _may_pass(error) or now + delay_s > patient_until or self._stop.is_set():
            raise error
        if now + delay_s > self._deadline:
            raise TimedOut(f"the deadline passed: {error}", "DEADLINE_EXCEEDED")
        self._wait_s = min(self._wait_s * WAIT_FACTOR, MAX_WAIT_S)
        number = self._reconnects.record()
        if not loading:
            line = "%s; %s in %.1f s (reconnect %d)"
            _log.log(self._log_level, line, error, where, delay_s, number)
        elif not loading_before:
            _log.warning("%s; waiting up to %g s for it", error, allowed_s)
        if self._stop.wait(min(delay_s, threading.TIMEOUT_MAX)):
            raise error


def _may_pass(error: RpcError) -> bool:
    # RESOURCE_EXHAUSTED is also the status of a message over the size limit, which stays too large.
    limited = isinstance(error, Exhausted) and error.retry_after_s is not None
    return isinstance(error, Unreachable) or limited or cancelled_by_server(error)
