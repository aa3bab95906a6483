"""A stream's messages through memory shared with a server on the same host.

Enters: a query. Leave: responses. The memory is anonymous, so the kernel frees it when both sides
have closed it or died. A message is parsed out of its slot, which copies it once, and the slot is
released: its arrays can be kept like those that came over a socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import queue
import secrets
import weakref
from collections.abc import Iterator
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from labelmint.errors import MalformedMessage
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.message_parts import check_parts
from labelmint.wire.resuming_stream import StreamCall

SLOTS = 8
RELEASED_TOGETHER = SLOTS // 2  # slots; a request for each would cost more than the copy
DEFAULT_MESSAGE_BYTES = 4 << 20  # bytes of a slot for a query without max_message_bytes
NONCE_BYTES = 16
_NOT_OFFERED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED)


class SharedMemory:
    """Sealed anonymous memory of SLOTS slots, and a nonce behind them."""

    def __init__(self, slot_bytes: int) -> None:
        """Raises OSError, AttributeError where the system has no such memory."""
        self._slot_bytes = slot_bytes
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        size = slot_bytes * SLOTS + NONCE_BYTES
        self._fd = os.memfd_create("labelmint", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
            self._map = mmap.mmap(self._fd, size)
        except OSError:
            os.close(self._fd)
            raise
        self._close = weakref.finalize(self, os.close, self._fd)
        self._map[size - NONCE_BYTES :] = self._nonce

    def description(self) -> pb.SharedMemory:
        """The description by which a server finds the memory."""
        return pb.SharedMemory(
            pid=os.getpid(), fd=self._fd, slot_bytes=self._slot_bytes, slots=SLOTS,
            nonce=self._nonce,
        )  # fmt: skip

    def message(self, number: int, size: int) -> pb.StreamSamplesResponse:
        """Message `number` of the stream, which has `size` bytes. Raises MalformedMessage."""
        if size > self._slot_bytes:
            raise MalformedMessage(
                f"a message of {size} bytes in a slot of {self._slot_bytes} bytes"
            )
        begin = number % SLOTS * self._slot_bytes
        message = pb.StreamSamplesResponse()
        with memoryview(self._map) as whole, whole[begin : begin + size] as part:
            data = cast(bytes, part)  # any buffer will do
            check_parts(data, pb.StreamSamplesResponse.DESCRIPTOR)
            try:
                message.MergeFromString(data)
            except DecodeError as error:
                raise MalformedMessage(f"a message of {size} bytes does not parse") from error
        return message

    def close(self) -> None:
        """Frees the memory; harmless when closed. Collecting the object does the same."""
        self._map.close()
        self._close()


class SharedCall:
    """A StreamCall through shared memory, or over the connection if the server refuses that."""

    def __init__(self, stub: Any, query: pb.SampleQuery, **options: Any) -> None:
        """`options` are those of a grpc call."""
        self._stub, self._query, self._options = stub, query, options
        self._memory = SharedMemory(query.max_message_bytes or DEFAULT_MESSAGE_BYTES)
        self._requests: queue.SimpleQueue[pb.StreamSharedSamplesRequest | None]
        self._requests = queue.SimpleQueue()
        first = pb.StreamSharedSamplesRequest(query=query, memory=self._memory.description())
        self._requests.put(first)
        self._call = stub.StreamSharedSamples(self._sent_requests(), **options)
        self._plain_call: StreamCall | None = None  # in place of a refused shared one
        self._cancelled = False
        self._received = 0

    def __next__(self) -> pb.StreamSamplesResponse:
        if self._plain_call is not None:
            return next(self._plain_call)
        try:
            size = next(self._call).size
        except grpc.RpcError as error:
            self._end()
            if self._received or error.code() not in _NOT_OFFERED:
                raise
            request = pb.StreamSamplesRequest(query=self._query)
            call: StreamCall = self._stub.StreamSamples(request, **self._options)
            self._plain_call = call
            if self._cancelled:  # meanwhile, by another thread, which cancelled self._call
                call.cancel()
            return next(call)
        except StopIteration:
            self._end()
            raise
        message = self._memory.message(self._received, size)
        self._received += 1
        if self._received % RELEASED_TOGETHER == 0:
            self._requests.put(pb.StreamSharedSamplesRequest(released=self._received))
        return message

    def cancel(self) -> bool:
        """Ends the call."""
        self._cancelled = True
        self._requests.put(None)
        return bool((self._plain_call or self._call).cancel())

    def _end(self) -> None:
        self._requests.put(None)
        self._memory.close()

    def _sent_requests(self) -> Iterator[pb.StreamSharedSamplesRequest]:
        """Requests until None is in the queue; runs in one of gRPC's threads."""
        while (request := self._requests.get()) is not None:
            yield request


def shared_call(stub: Any, query: pb.SampleQuery, **options: Any) -> StreamCall:
    """A StreamSamples call, through shared memory where this system and the server have it."""
    with contextlib.suppress(OSError, AttributeError):  # no memfd_create: not Linux, or forbidden
        return SharedCall(stub, query, **options)
    call: StreamCall = stub.StreamSamples(pb.StreamSamplesRequest(query=query), **options)
    return call
