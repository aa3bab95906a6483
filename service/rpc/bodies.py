"""Request bodies: how many are received at once, in total and by client.

gRPC receives a whole message, of up to max_request_bytes, before anyone sees a byte of it. So each
body waits here for a slot before it is received; until then HTTP/2's flow control leaves it with
the caller, but for WINDOW_BYTES. All calls enter, before their own limits.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from service.config import ServerLimits
from service.errors import BadRequest, Overloaded, ServiceError, status_from_error
from service.metrics import Metrics
from service.rpc.callers import OPEN_SERVICE

WINDOW_BYTES = 64 << 10  # HTTP/2's window: what arrives of a body that nobody receives yet
WAITING_PER_STREAM = 4  # bodies that may wait, for each of max_streams
# Limit of a request to gRPC's own services, health and reflection, which has the name of a service.
# An open watch holds its request.
MAX_NAME_BYTES = 4 << 10

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True)
class Patience:
    """Seconds that a body may take to arrive while others wait; there is no limit otherwise."""

    fair: float  # when others of the same client wait, or of one that receives about as many
    unfair: float  # when others wait of a client that receives at least two fewer


PATIENCE = Patience(fair=10.0, unfair=1.0)  # in 10 s, 64 MiB arrive at 54 Mbit/s
OPEN_PATIENCE = Patience(fair=0.2, unfair=0.1)  # a health check has a few bytes


@dataclass(eq=False)
class _Body:
    """A body that waits for its slot, or is received."""

    client: str
    slot: asyncio.Future[None]  # done once it has a slot; fails when it will get none
    late: asyncio.Future[None]  # done once it has taken too long
    since: float = 0.0  # when it got its slot, on time.monotonic's clock


class Slots:
    """The slots of bodies, shared evenly by the clients whose bodies wait."""

    def __init__(self, slots: int, max_waiting: int, patience: Patience) -> None:
        """At most `slots` bodies are received at once, and at most `max_waiting` wait."""
        self._slots, self._max_waiting, self._patience = slots, max_waiting, patience
        self._received: list[_Body] = []
        self._waiting: dict[str, deque[_Body]] = {}  # by client, the next in turn first
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, client: str) -> AsyncIterator[asyncio.Future[None]]:
        """Waits for a slot, and holds it until the block ends.

        Yields a future that is done once the body has to end, because it takes too long. Raises
        Overloaded.
        """
        loop = asyncio.get_running_loop()
        body = _Body(client, loop.create_future(), loop.create_future())
        self._waiting.setdefault(client, deque()).append(body)
        self._refuse_beyond_limit()
        self._fill()
        try:
            await body.slot
            yield body.late
        finally:
            self._remove(body)
            self._fill()

    def _fill(self) -> None:
        """Gives free slots to the clients with the fewest."""
        held = self._held()
        while self._waiting and len(self._received) < self._slots:
            client = min(self._waiting, key=lambda name: held[name])
            queue = self._waiting.pop(client)
            body = queue.popleft()
            if queue:
                self._waiting[client] = queue  # behind the others
            if not body.slot.done():  # else its call was canceled
                body.slot.set_result(None)
                body.since = time.monotonic()
                self._received.append(body)
                held[client] += 1
        self._watch()

    def _watch(self) -> None:
        """Sets the timer to the end of the first body that has to end for those that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and self._received:
            held = self._held()
            fewest = min(held[client] for client in self._waiting)
            ends = [
                body.since
                + (self._patience.unfair if held[body.client] > fewest + 1 else self._patience.fair)
                for body in self._received
            ]
            end = min(ends)
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, end - time.monotonic()), self._expire, self._received[ends.index(end)]
            )

    def _expire(self, body: _Body) -> None:
        """Ends a body. Its slot is free once its call has ended, see `slot`."""
        self._timer = None
        if not body.late.done():
            body.late.set_result(None)

    def _refuse_beyond_limit(self) -> None:
        """Refuses the newest body of the client with the most, if too many wait."""
        if sum(map(len, self._waiting.values())) <= self._max_waiting:
            return
        client = max(self._waiting, key=lambda name: len(self._waiting[name]))
        body = self._waiting[client][-1]
        self._remove(body)
        if not body.slot.done():
            body.slot.set_exception(
                Overloaded(
                    f"{self._max_waiting} request bodies wait to be received, most of them of "
                    f"client {client}; send fewer at once"
                )
            )

    def _remove(self, body: _Body) -> None:
        if body in self._received:
            self._received.remove(body)
            return
        queue = self._waiting.get(body.client, deque())
        if body in queue:
            queue.remove(body)
        if not queue:
            self._waiting.pop(body.client, None)

    def _held(self) -> Counter[str]:
        return Counter(body.client for body in self._received)


class RequestBodies(grpc.aio.ServerInterceptor):
    """Interceptor that receives the body of each call with one request in a slot.

    Calls with a stream of requests wait for requests as long as they are open, so each of them may
    receive one; their number is limited.
    """

    def __init__(
        self, limits: ServerLimits, caller_of: Callable[[Context], str], metrics: Metrics
    ) -> None:
        self._limits, self._caller_of, self._metrics = limits, caller_of, metrics
        slots = limits.max_receiving_bytes // limits.max_request_bytes
        waiting = WAITING_PER_STREAM * limits.max_streams
        # Calls that need no token take no slot of those that have one.
        self._open_slots = Slots(max(1, slots // 4), waiting, OPEN_PATIENCE)
        self._slots = Slots(max(1, slots - slots // 4), waiting, PATIENCE)
        self._exchanges: Counter[str] = Counter()  # open calls with streams of requests, by client

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """A handler that receives bodies as above, around the method's own."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        is_open = handler_call_details.method.startswith(OPEN_SERVICE)
        slots = self._open_slots if is_open else self._slots
        of_grpc = handler_call_details.method.startswith("/grpc.")
        reader = _Reader(
            MAX_NAME_BYTES if of_grpc else self._limits.max_request_bytes,
            handler.request_deserializer,
        )
        around = (
            partial(self._around_stream, reader)
            if handler.request_streaming
            else partial(self._around_one, reader, slots)
        )
        codecs = None, handler.response_serializer
        if handler.response_streaming:
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(around(_written(behavior)), *codecs)
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(around(behavior), *codecs)

    def _around_one(
        self, reader: _Reader, slots: Slots, behavior: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Any]:
        async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
            try:
                body = await self._received(reader, slots, context)
            except ServiceError as error:
                await self._abort(error, context)
            work = behavior(body, context)
            del body
            return await _released(work)

        return handle

    def _around_stream(
        self, reader: _Reader, behavior: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Any]:
        async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
            try:
                with self._exchange(self._caller_of(context)):
                    return await _released(behavior(reader.requests(context), context))
            except ServiceError as error:
                await self._abort(error, context)

        return handle

    async def _received(self, reader: _Reader, slots: Slots, context: Context) -> Any:
        """The request of a call. Raises Overloaded, BadRequest."""
        async with slots.slot(self._caller_of(context)) as late:
            reading = asyncio.ensure_future(reader.read(context))
            try:
                await asyncio.wait((reading, late), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    raise Overloaded(
                        "the request took too long to arrive while others waited, see "
                        "max_receiving_bytes; send fewer large requests at once"
                    )
                body = reading.result()
            finally:
                reading.cancel()
        if body is grpc.aio.EOF:
            raise BadRequest("the call has no request; send one message")
        return body

    @contextmanager
    def _exchange(self, client: str) -> Iterator[None]:
        """Counts a call with a stream of requests while the block runs. Raises Overloaded."""
        for count, limit, name in (
            (self._exchanges[client], self._limits.max_client_streams, "max_client_streams"),
            (self._exchanges.total(), self._limits.max_streams, "max_streams"),
        ):
            if count >= limit:
                raise Overloaded(
                    f"{count} calls with streams of requests are open, {name} is {limit}; end one "
                    "first"
                )
        self._exchanges[client] += 1
        try:
            yield
        finally:
            self._exchanges[client] -= 1
            self._exchanges += Counter()  # removes clients with no open call

    async def _abort(self, error: ServiceError, context: Context) -> NoReturn:
        status = status_from_error(error)
        error.__traceback__ = None  # its frames hold the request, and a refusal may never be read
        self._metrics.count_request("", "", status.code.name)
        await context.abort(status.code, status.message, status.metadata)
        raise AssertionError("abort returned")


@dataclass(frozen=True)
class _Reader:
    """Reads the requests of one method."""

    max_bytes: int
    deserialize: Callable[[bytes], Any] | None  # None: requests stay bytes

    async def read(self, context: Context) -> Any:
        """The next request, or grpc.aio.EOF. Raises BadRequest."""
        data = await context.read()
        if data is grpc.aio.EOF:
            return data
        if len(data) > self.max_bytes:
            raise BadRequest(
                f"the request has {len(data)} bytes; the limit of this method is {self.max_bytes}"
            )
        try:
            return data if self.deserialize is None else self.deserialize(data)
        except DecodeError as error:
            raise BadRequest(f"the request does not parse: {error}") from error

    async def requests(self, context: Context) -> AsyncIterator[Any]:
        """All requests. While one is in use, this generator holds none. Raises BadRequest."""
        while True:
            request = [await self.read(context)]
            if request[0] is grpc.aio.EOF:
                return
            yield request.pop()


async def _released(work: Awaitable[Any]) -> Any:
    """The result of a call's work; if the call is aborted, its request leaves memory.

    gRPC keeps the error of an abort in a cycle with its traceback, so that all that the frames
    hold, such as a request, would stay until a garbage collection.
    """
    try:
        return await work
    except grpc.aio.AbortError as error:
        error.__context__ = None
        traceback.clear_frames(error.__traceback__)
        raise


def _written(behavior: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    """A method with a stream of responses, as a coroutine that writes them."""
    if not inspect.isasyncgenfunction(behavior):
        return behavior  # it writes them itself

    async def write(request: Any, context: Context) -> None:
        async for response in behavior(request, context):
            await context.write(response)

    return write
