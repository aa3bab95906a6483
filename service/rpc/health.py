"""grpc.health.v1.Health: whether this server serves, asked once or watched, without a token.

grpc_health has a servicer, but its watchers write under the lock that every change of a status
needs, so that one caller who does not read would stop all changes. Here a change waits for nobody.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

Response: TypeAlias = health_pb2.HealthCheckResponse
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, Response]"

SERVICE: str = health.SERVICE_NAME
MAX_CLIENT_WATCHES = 256  # open watches of one client; they need no token and may stay for ever


class Health:
    """The statuses of this server's services, and the callers that watch them."""

    def __init__(self, client_of: Callable[[Any], str]) -> None:
        """`client_of` names a call's client, for the limit on watches."""
        self._client_of = client_of
        self._statuses: dict[str, Any] = {}
        self._changes: set[asyncio.Event] = set()  # one for each open watch
        self._watches: Counter[str] = Counter()  # open watches by client

    def set(self, service: str, status: int) -> None:
        """Changes a service's status and wakes its watchers; waits for none of them."""
        self._statuses[service] = status
        for change in self._changes:
            change.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """The calls by name, for a gRPC server."""
        # Requests are parsed here, so that one that does not parse is the caller's mistake.
        types: dict[str, Any] = {
            "response_serializer": health_pb2.HealthCheckResponse.SerializeToString
        }
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, **types),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **types),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def check(self, request: bytes, context: Context) -> Response:
        """The status now; NOT_FOUND for a service that has none."""
        status = self._statuses.get(await _service_from_request(request, context))
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def watch(self, request: bytes, context: Context) -> None:
        """Writes the status now, and its changes until the caller leaves.

        A caller that reads slowly misses statuses, but never the last one.
        """
        service, client = await _service_from_request(request, context), self._client_of(context)
        if self._watches[client] >= MAX_CLIENT_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_CLIENT_WATCHES} watches of {client} are open, the most there may be; end "
                "one first",
            )
        change, written = asyncio.Event(), None
        self._changes.add(change)
        self._watches[client] += 1
        try:
            while True:
                change.clear()
                status = self._statuses.get(service, Response.SERVICE_UNKNOWN)
                if status != written:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                written = status
                await change.wait()
        finally:
            self._changes.remove(change)
            self._watches -= Counter({client: 1})  # forgets clients without an open watch


async def _service_from_request(request: bytes, context: Context) -> str:
    """The service that a request names; ends the call if it is none."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(request).service)
    except DecodeError as error:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the request is not a valid HealthCheckRequest: {error}",
        )
