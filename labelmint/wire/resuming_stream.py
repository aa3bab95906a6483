"""The messages of one query, checked, through the failures of the servers that answer it.

Enters: a query. Leave: messages. The rest of a stream is requested from the next replica when
- the server ends it with UNAVAILABLE, as it may after any message,
- the server ends it with OK before it is complete, or
- nothing comes for too long.
That happens after a wait, see retries; at once if the stream had only reached its age limit, at
most every AGED_S, or met the end of a connection that had.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import grpc

from labelmint.errors import (
    MalformedMessage,
    RpcError,
    Unreachable,
    ended_by_age,
)
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Answers, Message
from labelmint.wire.channel import Tls
from labelmint.wire.faults import error_from_call
from labelmint.wire.retries import Patience, Reconnects, Retries

LASTING_S = 1.0  # a call that has lasted so long ends a row of failures with any message
# Least time between the begins of two calls when age ends the first one: a server that ends every
# call as soon as it begins is not asked as fast as it answers.
AGED_S = 0.1
# Messages without a sample and without progress: these, and these in each second of a call.
# Servers send one in each second.
MAX_IDLE_MESSAGES, MAX_IDLE_RATE = 100, 10
_log = logging.getLogger("labelmint")


class StreamCall(Protocol):
    """A running StreamSamples call, as grpc returns it."""

    def __next__(self) -> pb.StreamSamplesResponse: ...
    def cancel(self) -> bool: ...


class OpenedCall(NamedTuple):
    """A call, the target that answers it, and the TLS settings of its channel."""

    call: StreamCall
    target: str
    tls: Tls | None = None


OpenCall = Callable[[pb.SampleQuery, float | None], OpenedCall]  # query, timeout in seconds


class ResumingStream:
    """Messages of one query; `messages` runs in one thread, `close` and `watch` in any."""

    def __init__(
        self,
        open_call: OpenCall,
        query: pb.SampleQuery,
        patience: Patience,
        reconnects: Reconnects,
        deadline: float = math.inf,
    ) -> None:
        """`deadline` is on time.monotonic's clock."""
        self._open_call, self._query, self._deadline = open_call, query, deadline
        self._silence_s = patience.silence_s
        self._closed = threading.Event()
        self._retries = Retries(patience, reconnects, deadline, self._closed)
        self._call: StreamCall | None = None
        self._waiting_since: float | None = None  # for a message; None while none is awaited
        self._silent = False  # whether `watch` ended the call
        self._answers = Answers(query)
        self._opened = 0.0  # when the call was
        self._idle_messages = 0  # of this call, in a row

    def messages(self) -> Iterator[Message]:
        """Yields messages until the query is answered, or `close`. Raises LabelmintError."""
        rest: pb.SampleQuery | None = self._query
        while rest is not None:
            began = self._answers.next_index
            call, target, tls = self._open(rest)
            ended: grpc.RpcError | None = None
            try:
                while (response := self._next_of(call)) is not None:
                    yield self._checked(response)
            except grpc.RpcError as error:
                ended = error
            rest = self._answers.remaining()
            if rest is None and ended is None:
                return
            index = self._answers.next_index
            where = f"resuming at index {index}"
            if ended is None:
                message = f"{target} ended the stream at index {index}, before its end"
                self._retries.wait(Unreachable(message, "UNAVAILABLE"), where)
            # Wait when nothing came: this server may end every stream as soon as it begins.
            elif ended_by_age(ended) and index > began:
                _log.info("%s has ended a stream because of its age; %s", target, where)
                self._closed.wait(max(0.0, self._opened + AGED_S - time.monotonic()))
            else:
                self._retries.wait(self._typed(ended, target, tls), where)

    def watch(self) -> None:
        """Ends a call that has been silent for silence_s, so that `messages` opens another."""
        since = self._waiting_since
        # A call that the server never received stays silent without an error.
        if since is not None and time.monotonic() - since > self._silence_s and self._call:
            self._silent = True
            self._call.cancel()

    def close(self) -> None:
        """Ends the call and the waits between calls."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _open(self, query: pb.SampleQuery) -> OpenedCall:
        left_s = self._deadline - time.monotonic()
        opened = self._open_call(query, None if left_s == math.inf else max(left_s, 0.0))
        self._retries.began()
        self._silent, self._call = False, opened.call
        self._opened, self._idle_messages = time.monotonic(), 0
        if self._closed.is_set():  # meanwhile; `close` has cancelled the call before this one
            opened.call.cancel()
        return opened

    def _next_of(self, call: StreamCall) -> pb.StreamSamplesResponse | None:
        self._waiting_since = time.monotonic()
        try:
            return next(call)
        except StopIteration:
            return None
        finally:
            self._waiting_since = None

    def _typed(self, error: grpc.RpcError, target: str, tls: Tls | None) -> RpcError:
        typed = error_from_call(error, target, tls)
        if self._silent:
            typed = Unreachable(
                f"{target} sent nothing for {self._silence_s:g} s, not even a heartbeat",
                "UNAVAILABLE",
            )
        typed.__cause__ = error
        return typed

    def _checked(self, response: pb.StreamSamplesResponse) -> Message:
        """The message, which may end a row of failures. Raises MalformedMessage."""
        before = self._answers.next_index
        message = self._answers.checked(response)
        self._idle_messages = 0 if message.next_index > before else self._idle_messages + 1
        open_s = time.monotonic() - self._opened
        if self._idle_messages > MAX_IDLE_MESSAGES + MAX_IDLE_RATE * open_s:
            raise MalformedMessage(
                f"the server sent {self._idle_messages} messages without a sample in {open_s:.1f} "
                f"s, all at index {before}; it should send one in a second"
            )
        # A server that ends every call as soon as it begins may send a heartbeat in each.
        if message.next_index > before or open_s >= LASTING_S:
            self._retries.progressed()
        else:
            self._retries.answered()
        return message
