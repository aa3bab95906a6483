"""How a call begins and ends: bytes to a message, any exception to a status.

Handlers get and give bytes, so that a request that is no protobuf is the caller's mistake and
not the library's INTERNAL, and so that responses are serialised off the event loop.
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

from service.admission import RequestRate
from service.errors import NEXT_INDEX, BadRequest, Overloaded, Status, status_from_error
from service.logs import REQUEST_ID_HEADER, fields, request_id, request_id_from_metadata
from service.metrics import Metrics
from service.tracing import Span, Tracing

Context = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)

_OK = Status(grpc.StatusCode.OK, "", ())
_log = logging.getLogger(__name__)
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "", ())  # nobody hears it, but it is counted


class _CallerLeft(Exception):
    """A message could not be written."""


@dataclass
class Call:
    """One call under way, for its trailers and its metrics."""

    deadline: float  # on time.monotonic's clock
    client: str  # who calls, for limits
    peer: str  # from where, as grpc names it
    span: Span
    is_admin: Callable[[], bool] = field(default=lambda: False, repr=False)
    model: str = ""  # name of a served model, once known
    next_index: int | None = None  # where to resume after the last message sent


def request_from_bytes(data: bytes, kind: type[Request]) -> Request:
    """Raises BadRequest."""
    request = kind()
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        raise BadRequest(f"the request is no {kind.DESCRIPTOR.name}: {error}") from error
    return request


class CallHandlers:
    """Wraps handlers so that every call ends as the table in errors says, and is counted."""

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
        """Returns when no call is under way any more, or after the timeout."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def unary(
        self, method: str, behaviour: Callable[[Call, bytes], Awaitable[bytes]]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """A call with one answer."""

        async def handle(data: bytes, context: Context) -> bytes:
            answer = b""
            async with self._ending(method, context) as call:
                answer = await behaviour(call, data)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(
        self, method: str, behaviour: Callable[[Call, bytes], AsyncGenerator[bytes, None]]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """A call with many; its trailers tell where to resume."""

        async def handle(data: bytes, context: Context) -> None:
            async with (
                self._ending(method, context) as call,
                aclosing(behaviour(call, data)) as messages,
            ):
                async for message in messages:
                    await _write(message, context)

        return grpc.unary_stream_rpc_method_handler(handle)

    def exchange(
        self,
        method: str,
        behaviour: Callable[[Call, AsyncIterator[bytes]], AsyncGenerator[bytes, None]],
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """A call with many requests and many answers."""

        async def handle(requests: AsyncIterator[bytes], context: Context) -> None:
            async with (
                self._ending(method, context) as call,
                aclosing(behaviour(call, requests)) as messages,
            ):
                async for message in messages:
                    await _write(message, context)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def within(
        self, call: Call, method: str, behaviour: Callable[[Call], Awaitable[bytes]]
    ) -> bytes | Status:
        """One request of an exchange: limited and counted like a call of its own."""
        own, status = replace(call, model="", next_index=None), _CANCELLED
        try:
            self._check_rate(own.client)
            answer = await behaviour(own)
            status = _OK
            return answer
        except Exception as error:
            status = status_from_error(error)
            return status
        finally:
            self._metrics.count_request(own.model, method, status.code.name)

    @asynccontextmanager
    async def _ending(self, method: str, context: Context) -> AsyncIterator[Call]:
        began, status = time.monotonic(), _CANCELLED
        call = self._call(method, context)
        self._active += 1
        self._idle.clear()
        try:
            try:
                self._check_rate(call.client)
                yield call
                status = _OK
            except _CallerLeft:
                return
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
        request_id.set(request_id_from_metadata(metadata))  # of this task, which is the call's
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
                f"client {client} calls more often than max_client_requests_per_s allows; try "
                f"again in {wait_s:.2f} s",
                wait_s,
            )


async def _write(message: bytes, context: Context) -> None:
    try:
        await context.write(message)
    except Exception as error:  # a private class of grpc's; a write fails for no other reason
        raise _CallerLeft from error


async def _end(call: Call, status: Status, context: Context) -> None:
    metadata = (*status.metadata, (REQUEST_ID_HEADER, request_id.get()))
    if call.next_index is not None:
        metadata += ((NEXT_INDEX, str(call.next_index)),)
    if status is _OK:
        context.set_trailing_metadata(metadata)
    else:
        await context.abort(status.code, status.message, metadata)
