"""Authenticates callers by bearer token, and names them for the limits per client.

There may be two token files: one for callers and one for administrators.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import grpc

from service.metrics import Metrics
from service.tokens import Tokens

OPEN_SERVICE = "/grpc.health.v1.Health/"  # needs no token, because probes send none
_BEARER = re.compile(r"[Bb]earer +(\S+)")
_PORT = re.compile(r":\d+$")
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Authentication(grpc.aio.ServerInterceptor):
    """Interceptor that refuses calls without a valid token, before any handler runs."""

    def __init__(self, tokens: Sequence[Tokens], metrics: Metrics) -> None:
        self._tokens, self._metrics = tokens, metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's own handler, or one that answers UNAUTHENTICATED."""
        if handler_call_details.method.startswith(OPEN_SERVICE):
            return await continuation(handler_call_details)
        token = bearer_token(handler_call_details.invocation_metadata)
        if token is None:
            return self._refusing(
                "the call has no token; set LABELMINT_TOKEN for labelmint's client, or send the "
                "metadata authorization: Bearer TOKEN"
            )
        if _name_of(token, self._tokens) is None:
            return self._refusing("this server does not know the token; ask its operator for one")
        return await continuation(handler_call_details)

    def _refusing(self, message: str) -> Handler:
        """A handler that refuses without receiving the request: only one for a stream of requests
        is called before gRPC has received the first."""

        async def refuse(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> bytes:
            self._metrics.count_request("", "", grpc.StatusCode.UNAUTHENTICATED.name)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

        return grpc.stream_unary_rpc_method_handler(refuse)


def bearer_token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """Bearer token of the first authorization header, or None."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str):
            found = _BEARER.fullmatch(value)
            return found[1] if found else None
    return None


def caller_of(context: grpc.aio.ServicerContext[Any, Any], tokens: Sequence[Tokens]) -> str:
    """Name of the token, else the common name of a client certificate, else the address."""
    name = _name_of(bearer_token(context.invocation_metadata()), tokens)
    if name is not None:
        return name
    for common_name in context.auth_context().get("x509_common_name", ()):
        return bytes(common_name).decode(errors="replace")
    return _PORT.sub("", context.peer())


def _name_of(token: str | None, tokens: Sequence[Tokens]) -> str | None:
    names = [file.name_of(token) for file in tokens] if token is not None else []
    return next((name for name in names if name is not None), None)
