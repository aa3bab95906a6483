"""One server stream's messages, checked, whatever happens to its servers meanwhile.

A stream that a server ends with UNAVAILABLE, as it may at any message boundary, or that falls
silent, is asked for again at its position, of the next replica; at once, when it was ended because
of its age.
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

from labelmint.batch import Chunk, chunk_from_proto
from labelmint.errors import (
    MalformedMessage,
    RpcError,
    Unreachable,
    ended_by_age,
    error_from_rpc,
)
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.retries import Patience, Reconnects, Retries
from labelmint.wire.sharding import outsiders, resumed

_log = logging.getLogger("labelmint")


class StreamCall(Protocol):
    """A running StreamSamples call."""

    def __next__(self) -> pb.StreamSamplesResponse: ...
    def cancel(self) -> bool: ...


class Opened(NamedTuple):
    """A call, and whom it went to."""

    call: StreamCall
    target: str


OpenCall = Callable[[pb.SampleQuery, float | None], Opened]  # query, timeout in seconds


@dataclass(frozen=True, eq=False)
class Message:
    """What one response brought."""

    chunk: Chunk
    next_index: int
    bundle_id: str

    @property
    def nbytes(self) -> int:
        """Bytes of its samples."""
        return sum(array.nbytes for array in self.chunk.arrays.values())


class Source:
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
        self._asked_at: float | None = None  # since when a message is waited for
        self._silent = False  # the call was ended because nothing came
        self._next_index = query.start_index  # what the server has told so far
        self._received = 0
        self._bundle_id = ""

    def messages(self) -> Iterator[Message]:
        """Until the query is answered, or `close`. Raises LabelmintError."""
        rest: pb.SampleQuery | None = self._query
        while rest is not None:
            began = self._next_index
            call, target = self._open(rest)
            try:
                while (response := self._next_of(call)) is not None:
                    yield self._accepted(response)
                return
            except grpc.RpcError as error:
                where = f"going on at index {self._next_index}"
                # A server that ends every stream at once, of whatever age, has to be waited for.
                if ended_by_age(error) and self._next_index > began:
                    _log.info("%s has ended a stream by its age; %s", target, where)
                else:
                    self._retries.wait(self._typed(error, target), where)
            rest = resumed(self._query, self._next_index, self._received, self._bundle_id)

    def watch(self) -> None:
        """Ends a call that is silent for too long, so that `messages` opens another."""
        asked_at = self._asked_at
        # A call that the server never got stays silent for ever.
        if asked_at is not None and time.monotonic() - asked_at > self._silence_s and self._call:
            self._silent = True
            self._call.cancel()

    def close(self) -> None:
        """Ends the call and the waits between calls."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _open(self, query: pb.SampleQuery) -> Opened:
        left = self._deadline - time.monotonic()
        opened = self._open_call(query, None if left == math.inf else max(left, 0.0))
        self._silent, self._call = False, opened.call
        if self._closed.is_set():  # by now: close saw the call before
            opened.call.cancel()
        return opened

    def _next_of(self, call: StreamCall) -> pb.StreamSamplesResponse | None:
        self._asked_at = time.monotonic()
        try:
            return next(call)
        except StopIteration:
            return None
        finally:
            self._asked_at = None

    def _typed(self, error: grpc.RpcError, target: str) -> RpcError:
        typed = error_from_rpc(error, target)
        if self._silent:
            typed = Unreachable(
                f"{target} sent nothing for {self._silence_s:g} s, not even a heartbeat",
                "UNAVAILABLE",
            )
        typed.__cause__ = error
        return typed

    def _accepted(self, response: pb.StreamSamplesResponse) -> Message:
        chunk = chunk_from_proto(response.batch)
        if len(chunk):
            first, last = int(chunk.indices[0]), int(chunk.indices[-1])
            if first < self._next_index or last >= response.next_index:
                raise MalformedMessage(
                    f"samples {first} to {last} are outside {self._next_index} to "
                    f"{response.next_index}, what the message covers"
                )
            strangers = chunk.indices[outsiders(self._query, chunk.indices)]
            if len(strangers):
                raise MalformedMessage(
                    f"sample {strangers[0]} is not of shard {self._query.shard_index} of "
                    f"{self._query.num_shards}"
                )
        elif response.next_index < self._next_index:
            raise MalformedMessage(
                f"next_index went back from {self._next_index} to {response.next_index}"
            )
        self._next_index = response.next_index
        self._received += len(chunk)
        self._bundle_id = response.bundle_id
        self._retries.progressed()
        return Message(chunk, response.next_index, response.bundle_id)
