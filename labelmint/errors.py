"""Everything that labelmint raises on purpose, and the one table from gRPC statuses to it.

    LabelmintError           .next_index is where its stream can go on, or None
    |-- MissingExtra         an optional dependency is not installed
    |-- MalformedMessage     the other side sent bytes that break the contract
    |-- ClientClosed         Client.close came before the call, or while it ran; or it is a fork's
    `-- RpcError             the call failed, by itself CANCELLED; .code is the gRPC status
        |-- Unreachable      UNAVAILABLE: no server, or it is draining; trying again may help
        |-- TimedOut         DEADLINE_EXCEEDED
        |-- Refused          the request cannot succeed as it is
        |   |-- Invalid      INVALID_ARGUMENT
        |   |-- NotFound     NOT_FOUND, UNIMPLEMENTED
        |   |-- NotReady     FAILED_PRECONDITION: the bundle lacks what the request needs
        |   |-- OutOfRange   OUT_OF_RANGE: max_examined reached
        |   |-- Denied       UNAUTHENTICATED, PERMISSION_DENIED
        |   `-- Exhausted    RESOURCE_EXHAUSTED: a limit; .retry_after_s when time may help
        `-- ServerFault      INTERNAL, UNKNOWN, DATA_LOSS and all other codes

A mistake in a call's own arguments that needs no server to see is a plain ValueError.
"""

from __future__ import annotations

from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# The ErrorInfo of a stream that a server ended in good order: nothing is wrong with either.
STREAM_AGED, ERROR_DOMAIN = "STREAM_AGED", "labelmint.v1"
_LOADING = "the server is loading"  # the details of UNAVAILABLE until models are loaded
_Detail = TypeVar("_Detail", bound=Message)


class LabelmintError(Exception):
    """Base of all errors of labelmint.

    Attributes:
        next_index: start_index that continues the stream which ended so, or None; every
            sample before it was delivered or discarded.
    """

    next_index: int | None = None


class MissingExtra(LabelmintError):
    """An optional dependency is not installed; the message has the pip command."""


class MalformedMessage(LabelmintError):
    """A message breaks the wire contract: wrong dtype, shape, length, offsets or frame."""


class ClientClosed(LabelmintError):
    """The client was closed, before the call or while it ran; in a fork it is, too."""

    def __init__(self, message: str = "the client is closed; make another Client") -> None:
        super().__init__(message)


class RpcError(LabelmintError):
    """A call failed.

    Attributes:
        code: name of the gRPC status code, such as "UNAVAILABLE".
        retry_after_s: seconds the server asks to wait before trying again, or None.
    """

    def __init__(self, message: str, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class Unreachable(RpcError):
    """No server answered, or it is draining; trying again may help."""


class TimedOut(RpcError):
    """The deadline of the call passed."""


class Refused(RpcError):
    """The server refused the request; sending it again unchanged cannot help."""


class Invalid(Refused):
    """A field of the request is out of range; the message names value, limit and fix."""


class NotFound(Refused):
    """The server has no such model or method."""


class NotReady(Refused):
    """The bundle lacks what the request needs, or is not the pinned one."""


class OutOfRange(Refused):
    """The stream examined max_examined samples without filling the request."""


class Denied(Refused):
    """The token is missing, wrong, or not allowed to do this."""


class Exhausted(Refused):
    """A server limit was reached; retry_after_s is set when waiting may help."""


class ServerFault(RpcError):
    """The server failed in a way that is its own fault."""


_CLASSES: dict[grpc.StatusCode, type[RpcError]] = {
    grpc.StatusCode.CANCELLED: RpcError,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: NotReady,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
}


_HINTS = {  # by what grpc says of a connection that failed
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate is of no authority trusted here: give the right authorities"
    ),
    "Hostname Verification": (
        "its certificate is for another name: give that as server_name (--server-name)"
    ),
    "WRONG_VERSION_NUMBER": "there is no TLS at this port: leave TLS out, or check the port",
    "Connection refused": "no server listens there: start one, or check host and port",
    ": Socket closed": (  # before it was of any use; later it is "(Socket closed)"
        "the other side closed the connection: check the port, and whether it wants TLS"
    ),
    "HTTP/2": "what listens there is no gRPC server: check the port",
    "lookup error": "the name has no address: check the target",
    "security handshaker": (
        "the PEM files are of no use: check authorities, certificate and private key"
    ),
}


def error_from_rpc(error: grpc.RpcError, target: str) -> RpcError:
    """The typed error for a failed call to target; raise it `from` the original."""
    code: grpc.StatusCode = error.code()
    message = error.details() or f"{code.name} without a message"
    if code is grpc.StatusCode.UNAVAILABLE:
        hints = [hint for words, hint in _HINTS.items() if words in message]
        message = "; ".join((f"{target} is unreachable: {message}", *hints[:1]))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and "Deadline Exceeded" in message:  # grpc's own
        message = f"the time ran out before {target} was done; give more: timeout_s or deadline_s"
    return _CLASSES.get(code, ServerFault)(message, code.name, _retry_after_s(error))


def is_loading(error: RpcError) -> bool:
    """Whether a server answered that its models are still loading, which takes it a while."""
    return isinstance(error, Unreachable) and _LOADING in str(error)


def ended_by_age(error: grpc.RpcError) -> bool:
    """Whether the server ended a stream that has been there for as long as streams may."""
    info = _detail(error, error_details_pb2.ErrorInfo())
    return info is not None and (info.reason, info.domain) == (STREAM_AGED, ERROR_DOMAIN)


def _retry_after_s(error: grpc.RpcError) -> float | None:
    retry = _detail(error, error_details_pb2.RetryInfo())
    if retry is None:
        return None
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9)


def _detail(error: grpc.RpcError, empty: _Detail) -> _Detail | None:
    """Fills the empty detail of that kind; None where there is none."""
    try:
        # Whatever a call raises is the call itself, too.
        status = rpc_status.from_call(cast(grpc.Call, error))
        if any(detail.Unpack(empty) for detail in (status.details if status else ())):
            return empty
    except (ValueError, DecodeError):
        pass  # the details are damaged or contradict the status: they are only a hint
    return None
