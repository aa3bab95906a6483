"""The messages of one query, checked, through the failures of the servers that answer it.

Enters: a query. Leave: messages. When a server ends a stream with UNAVAILABLE, as it may at any
message boundary, or falls silent, the rest is requested from the next replica: at once when the
stream was ended because of its age, else after a wait, see retries.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc

from labelmint.batch import KeptSamples, kept_from_proto
from labelmint.errors import (
    MalformedMessage,
    RpcError,
    Unreachable,
    ended_by_age,
    error_from_rpc,
)
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.retries import Patience, Reconnects, Retries
from labelmint.wire.sharding import foreign_indices, remaining_query

_log = logging.getLogger("labelmint")


class StreamCall(Protocol):
    """A running StreamSamples call, as grpc returns it."""

    def __next__(self) -> pb.StreamSamplesResponse: ...
    def cancel(self) -> bool: ...


class OpenedCall(NamedTuple):
    """A call, and the target that answers it."""

    call: StreamCall
    target: str


OpenCall = Callable[[pb.SampleQuery, float | None], OpenedCall]  # query, timeout in seconds


@dataclass(frozen=True, eq=False)
class Message:
    """What one StreamSamplesResponse says; a heartbeat when it has no samples."""

    kept: KeptSamples
    next_index: int  # raw index at which to resume after this message
    bundle_id: str  # bundle that made the samples

    @property
    def nbytes(self) -> int:
        """Bytes of the samples' arrays."""
        return sum(array.nbytes for array in self.kept.arrays.values())


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
        self._next_index = query.start_index  # as the last message said
        self._received = 0  # number of samples
        self._bundle_id = ""

    def messages(self) -> Iterator[Message]:
        """Yields messages until the query is answered, or `close`. Raises LabelmintError."""
        rest: pb.SampleQuery | None = self._query
        while rest is not None:
            began = self._next_index
            call, target = self._open(rest)
            try:
                while (response := self._next_of(call)) is not None:
                    yield self._checked(response)
                return
            except grpc.RpcError as error:
                where = f"resuming at index {self._next_index}"
                # Wait when nothing came: this server may end every stream as soon as it begins.
                if ended_by_age(error) and self._next_index > began:
                    _log.info("%s has ended a stream because of its age; %s", target, where)
                else:
                    self._retries.wait(self._typed(error, target), where)
            rest = remaining_query(self._query, self._next_index, self._received, self._bundle_id)

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
        self._silent, self._call = False, opened.call
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

    def _typed(self, error: grpc.RpcError, target: str) -> RpcError:
        typed = error_from_rpc(error, target)
        if self._silent:
            typed = Unreachable(
                f"{target} sent nothing for {self._silence_s:g} s, not even a heartbeat",
                "UNAVAILABLE",
            )
        typed.__cause__ = error
        return typed

    def _checked(self, response: pb.StreamSamplesResponse) -> Message:
        """The message, and this stream's position behind it. Raises MalformedMessage."""
        kept = kept_from_proto(response.batch)
        if len(kept):
            first, last = int(kept.indices[0]), int(kept.indices[-1])
            if first < self._next_index or last >= response.next_index:
                raise MalformedMessage(
                    f"samples {first} to {last} are outside {self._next_index} to "
                    f"{response.next_index}, the indices that the message covers"
                )
            foreign = kept.indices[foreign_indices(self._query, kept.indices)]
            if len(foreign):
                raise MalformedMessage(
                    f"sample {foreign[0]} is not of shard {self._query.shard_index} of "
                    f"{self._query.num_shards}"
                )
        elif response.next_index < self._next_index:
            raise MalformedMessage(
                f"next_index went back from {self._next_index} to {response.next_index}"
            )
        self._next_index = response.next_index
        self._received += len(kept)
        self._bundle_id = response.bundle_id
        self._retries.progressed()
        return Message(kept, response.next_index, response.bundle_id)
