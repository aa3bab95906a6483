"""A connection that counts the bytes of its messages and can end all its calls at once.

Enter: a target and options. Leave: for each request its number of samples and bytes; open streams.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from labelmint.errors import RpcError
from labelmint.options import StreamOptions, query_from_options
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import kept_from_answer
from labelmint.wire.channel import Tls, metadata_from_token, open_channel, stub_from_channel
from labelmint.wire.faults import error_from_call
from labelmint.wire.retries import Patience, Reconnects, Retries

if TYPE_CHECKING:
    from typing_extensions import Self

_NO_PATIENCE = Patience(connect_s=0.0, reconnect_s=0.0)


@dataclass(frozen=True)
class Payload:
    """Size of the answer to a request."""

    samples: int
    wire_bytes: int  # length of the serialized message


class MeteredCall:
    """A StreamSamples call that passes the length of every message, in bytes, to a function."""

    def __init__(self, call: Any, on_bytes: Callable[[int], object]) -> None:
        self._call, self._on_bytes = call, on_bytes

    def __next__(self) -> pb.StreamSamplesResponse:
        response: pb.StreamSamplesResponse = next(self._call)
        self._on_bytes(response.ByteSize())
        return response

    def cancel(self) -> bool:
        """Ends the call."""
        return bool(self._call.cancel())


class MeteredConnection:
    """One connection to one server, for calls from several threads. A context manager."""

    def __init__(self, target: str, tls: Tls | None) -> None:
        """Connects at the first call. Raises ValueError, OSError as open_channel does."""
        self.target, self.tls = target, tls
        self.ended = threading.Event()  # set by `end`
        self._metadata = metadata_from_token(None)
        self._channel = open_channel(target, tls)
        self._stub = stub_from_channel(self._channel)
        self._lock = threading.Lock()
        self._running: set[Any] = set()

    def generate(self, options: StreamOptions, timeout_s: float) -> Payload:
        """Sends one request and decodes the answer, as a client does; raises LabelmintError.

        A failure is final, except that of a call that met the end of its connection.
        """
        request = pb.GenerateSamplesRequest(query=query_from_options(options))
        deadline = time.monotonic() + timeout_s
        retries = Retries(_NO_PATIENCE, Reconnects(), deadline, self.ended)
        while True:
            try:
                response = self._answer(request, max(deadline - time.monotonic(), 0.0))
                break
            except RpcError as error:
                retries.wait(error, "sending the request again")
        return Payload(len(kept_from_answer(request.query, response)), response.ByteSize())

    def _answer(
        self, request: pb.GenerateSamplesRequest, timeout_s: float
    ) -> pb.GenerateSamplesResponse:
        call = self._stub.GenerateSamples.future(
            request, timeout=timeout_s, metadata=self._metadata
        )
        self._add(call)
        try:
            response: pb.GenerateSamplesResponse = call.result()
            return response
        except grpc.FutureCancelledError as error:
            raise RpcError("the call was cancelled by this client", "CANCELLED") from error
        except grpc.RpcError as error:
            raise error_from_call(error, self.target, self.tls) from error
        finally:
            with self._lock:
                self._running.discard(call)

    def stream(self, query: pb.SampleQuery, on_bytes: Callable[[int], object]) -> MeteredCall:
        """Opens a stream; on_bytes is called with the length of every message, in bytes."""
        request = pb.StreamSamplesRequest(query=query)
        call = self._stub.StreamSamples(request, metadata=self._metadata)
        self._add(call)
        return MeteredCall(call, on_bytes)

    def end(self) -> None:
        """Cancels all running calls, and every later one."""
        self.ended.set()
        with self._lock:
            running = list(self._running)
        for call in running:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.end()
        self._channel.close()

    def _add(self, call: Any) -> None:
        with self._lock:
            self._running.add(call)
        if self.ended.is_set():  # `end` may have run before this call was added
            call.cancel()
