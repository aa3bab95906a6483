"""Wraps the methods of our services as gRPC handlers: rate limits, errors -> statuses, metrics.

Methods take and return bytes instead of messages. So a malformed request gets INVALID_ARGUMENT
instead of gRPC's INTERNAL, and responses can be serialized outside the event loop.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from labelmint.errors import MalformedMessage
from labelmint.wire.message_parts import check_parts
from service.admission import RequestRate
from service.errors import NEXT_INDEX, BadRequest, Overloaded, Status, status_from_error
from service.logs import REQUEST_ID_HEADER, fields, request_id, request_id_from_metadata
from service.metrics import Metrics
from service.tracing import Span, Tracing

# Of a request. 65,536 indices, the limit, have at most 640 KiB.
MAX_PACKED_BYTES, MAX_TEXT_BYTES = 1 << 20, 1 << 20
Context = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)

_OK = Status(grpc.StatusCode.OK, "", ())
_log = logging.getLogger(__name__)
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "", ())  # never sent, only counted


class _CallerLeft(Exception):
    """A message could not be written, because the caller is gone."""


@dataclass
class Call:
    """One open gRPC call."""

    deadline: float  # on time.monotonic's clock; inf without a deadline
    client: str  # name of the caller for limits, see callers.caller_of
    peer: str  # address of the caller, as gRPC writes it
    span: Span
    is_admin: Callable[[], bool] = field(default=lambda: False, repr=False)
    request_bytes: int = 0  # size of the request, which stays in memory until the call ends
    model: str = ""  # name of the served model, once known; for metrics
    next_index: int | None = None  # index from which to resume after the last message; a trailer


def request_from_bytes(data: bytes, kind: type[Request]) -> Request:
    """Parses a request, unless it has far more parts than any needs. Raises BadRequest."""
    request = kind()
    try:
        check_parts(
            data, kind.DESCRIPTOR, max_packed_bytes=MAX_PACKED_BYTES, max_text_bytes=MAX_TEXT_BYTES
        )
        request.ParseFromString(data)
    except (MalformedMessage, DecodeError) as error:
        raise BadRequest(f"the request is not a valid {kind.DESCRIPTOR.name}: {error}") from error
    return request


class CallHandlers:
    """Makes gRPC handlers whose calls are limited, counted, logged, traced, and end with the
    status that errors.status_from_error gives."""

    def __init__(
        self,
        metrics: Metrics,
        rate: RequestRate,
        caller_of: Callable[[Context], str],
        tracing: Tracing,
        is_admin: Callable[[Context], bool],
    ) -> None:
        self._metrics, self._rate, self._tracing = metrics, rate, tracing
        self._caller_of, self._is_admin = caller_of, is_admin
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def ended(self, timeout_s: float) -> None:
        """Waits until no call is open, or for the timeout."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def unary(
        self, method: str, behavior: Callable[[Call, bytes], Awaitable[bytes]]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Handler of a method with one request and one response."""

        async def handle(data: bytes, context: Context) -> bytes:
            response = b""
            async with self._open_call(method, context, len(data)) as call:
                response = await behavior(call, data)
            return response

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(
        self, method: str, behavior: Callable[[Call, bytes], AsyncGenerator[bytes, None]]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Handler of a method with one request and a stream of responses."""

        async def handle(data: bytes, context: Context) -> None:
            async with (
                self._open_call(method, context, len(data)) as call,
                aclosing(behavior(call, data)) as messages,
            ):
                async for message in messages:
                    await _write(message, context)

        return grpc.unary_stream_rpc_method_handler(handle)

    def exchange(
        self,
        method: str,
        behavior: Callable[[Call, AsyncIterator[bytes]], AsyncGenerator[bytes, None]],
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Handler of a method with streams of requests and responses."""

        async def handle(requests: AsyncIterator[bytes], context: Context) -> None:
            async with (
                self._open_call(method, context) as call,
                aclosing(behavior(call, requests)) as messages,
            ):
                async for message in messages:
                    await _write(message, context)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def within(
        self, call: Call, method: str, behavior: Callable[[Call], Awaitable[bytes]]
    ) -> bytes | Status:
        """Runs one request of an exchange, limited and counted like a call of its own."""
        own, status = replace(call, model="", next_index=None), _CANCELLED
        try:
            self._check_rate(own.client)
            response = await behavior(own)
            status = _OK
            return response
        except Exception as error:
            status = status_from_error(error)
            return status
        finally:
            self._metrics.count_request(own.model, method, status.code.name)

    @asynccontextmanager
    async def _open_call(
        self, method: str, context: Context, request_bytes: int = 0
    ) -> AsyncIterator[Call]:
        began, status = time.monotonic(), _CANCELLED
        call = self._call(method, context)
        call.request_bytes = request_bytes
        self._active += 1
        self._idle.clear()
        try:
            try:
                self._check_rate(call.client)
                yield call
                status = _OK
            except _CallerLeft as error:
                # As gRPC ends calls of callers who leave. It would try to send a status after a
                # return, and log a traceback where the first message was never taken.
                raise asyncio.CancelledError from error
            except Exception as error:
                status = status_from_error(error)
            await _end(call, status, context)
        finally:
            self._record(method, call, status, time.monotonic() - began)
            self._active -= 1
            if not self._active:
                self._idle.set()

    def _call(self, method: str, context: Context) -> Call:
        metadata = context.invocation_metadata()
        request_id.set(request_id_from_metadata(metadata))  # each call has its own task
        remaining = context.time_remaining()
        return Call(
            deadline=math.inf if remaining is None else time.monotonic() + remaining,
            client=self._caller_of(context),
            peer=context.peer(),
            span=self._tracing.request(method, metadata),
            is_admin=partial(self._is_admin, context),
        )

    def _record(self, method: str, call: Call, status: Status, seconds: float) -> None:
        code = status.code.name
        self._metrics.count_request(call.model, method, code)
        call.span.set_attributes(
            {"rpc.grpc.status_code": status.code.value[0], "labelmint.model": call.model}
        )
        call.span.end()
        values = fields(
            method=method, code=code, seconds=round(seconds, 4), model=call.model,
            client=call.client,
        )  # fmt: skip
        _log.info("call ended", extra=values)

    def _check_rate(self, client: str) -> None:
        wait_s = self._rate.wait_s(client, time.monotonic())
        if wait_s:
            raise Overloaded(
                f"client {client} exceeds max_client_requests_per_s; try again in {wait_s:.2f} s",
                wait_s,
            )


async def _write(message: bytes, context: Context) -> None:
    try:
        await context.write(message)
    except Exception as error:  # gRPC's exception class is private; only a lost caller causes it
        raise _CallerLeft from error


async def _end(call: Call, status: Status, context: Context) -> None:
    metadata = (*status.metadata, (REQUEST_ID_HEADER, request_id.get()))
    if call.next_index is not None:
        metadata += ((NEXT_INDEX, str(call.next_index)),)
    if status is _OK:
        context.set_trailing_metadata(metadata)
    else:
        await context.abort(status.code, status.message, metadata)
