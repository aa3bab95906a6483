"""Errors of labelmint, and the table from gRPC status codes to them.

    LabelmintError           .next_index resumes the stream that ended with it, or is None
    |-- MissingExtra         an optional dependency is not installed
    |-- MalformedMessage     the server sent a message that breaks the contract
    |-- ClientClosed         the client was closed before or during the call, or this is a fork
    |-- WrongFolder          the folder of a data set cannot take this download
    `-- RpcError             the call failed; .code is the gRPC status, itself for CANCELLED
        |-- Unreachable      UNAVAILABLE: no server, or it is loading or draining; retry
        |-- TimedOut         DEADLINE_EXCEEDED
        |-- Refused          the request cannot succeed unless it is changed
        |   |-- Invalid      INVALID_ARGUMENT
        |   |-- NotFound     NOT_FOUND, UNIMPLEMENTED
        |   |-- NotReady     FAILED_PRECONDITION: the bundle lacks what the request needs
        |   |-- OutOfRange   OUT_OF_RANGE: max_examined reached
        |   |-- Denied       UNAUTHENTICATED, PERMISSION_DENIED
        |   `-- Exhausted    RESOURCE_EXHAUSTED: a limit; .retry_after_s if a retry may help
        `-- ServerFault      INTERNAL, UNKNOWN, DATA_LOSS and all other codes

Wrong arguments that the client recognizes without a server are plain ValueError and TypeError.
"""

from __future__ import annotations

import re
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# ErrorInfo of a stream that the server ended because of its age, which is no failure.
STREAM_AGED, ERROR_DOMAIN = "STREAM_AGED", "labelmint.v1"
MAX_MESSAGE_CHARACTERS = 4000  # of an error; a server could send millions
REFUSED_CONNECTION = "Connection refused"  # in the details of UNAVAILABLE, by gRPC
_CANCELLED_HERE = "Locally cancelled"  # in the details of gRPC
# The same, of a call that the server had not seen when it closed the connection in good order, and
# of one that had not been sent when its connection ended.
_UNSEEN = ("GOAWAY received; Error code: 0", "subchannel lost all connections")
_LOADING = "the server is loading"  # in the details of UNAVAILABLE until models are loaded
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n")  # torch's words
_Detail = TypeVar("_Detail", bound=Message)


def printable_from_text(text: str, limit: int | None = None) -> str:
    """Text that may come from a server, as a terminal or a log can show it.

    Control characters, terminal sequences, line breaks and marks that change the direction of
    writing become escapes such as \\x1b; what exceeds `limit` characters is left out.
    """
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text[:limit]
    )
    return shown[:limit] if len(text) == len(text[:limit]) else f"{shown[:limit]}..."


class LabelmintError(Exception):
    """Base of all errors of labelmint. Messages are printable, also where they quote a server.

    Attributes:
        next_index: start_index that resumes the stream that ended with this error, or None.
            All samples before it were delivered or discarded.
    """

    next_index: int | None = None

    def __init__(self, message: str = "") -> None:
        # A DataLoader raises the error of a worker again with a traceback as its message, whose
        # line breaks stay: all that a server said in it is printable already.
        lines = message.split("\n") if _FROM_WORKER.match(message) else [message]
        super().__init__(
            "\n".join(printable_from_text(line, MAX_MESSAGE_CHARACTERS) for line in lines)
        )


class MissingExtra(LabelmintError):
    """An optional dependency is not installed; the message has the pip command."""


class MalformedMessage(LabelmintError):
    """A message of the server has a wrong dtype, shape, length, offset or compressed frame."""


class ClientClosed(LabelmintError):
    """The client was closed before or during the call, or this process is a fork.

    In a fork of a process that had a client, neither that client nor a new one can be used.
    """

    def __init__(self, message: str = "the client is closed; make another Client") -> None:
        super().__init__(message)


class WrongFolder(LabelmintError):
    """A folder cannot take this download: it has other files, is damaged, or was begun with other
    options or another bundle. The same download into it fails again."""


class RpcError(LabelmintError):
    """A call failed.

    Attributes:
        code: name of the gRPC status code, such as "UNAVAILABLE".
        retry_after_s: seconds to wait before a retry, as the server asks; or None.
    """

    def __init__(self, message: str, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class Unreachable(RpcError):
    """No server answered, or it is loading or draining; a retry may help."""


class TimedOut(RpcError):
    """The deadline of the call passed."""


class Refused(RpcError):
    """The server refused the request; a retry without a change cannot help."""


class Invalid(Refused):
    """A field of the request is out of range; the message has value, limit and fix."""


class NotFound(Refused):
    """The server has no such model or method."""


class NotReady(Refused):
    """The bundle lacks a feature that the request needs, or is not the pinned bundle."""


class OutOfRange(Refused):
    """The stream examined max_examined samples without delivering all requested ones."""


class Denied(Refused):
    """The token is missing or wrong, or does not allow this call."""


class Exhausted(Refused):
    """A limit of the server is reached; retry_after_s is set if a retry may help."""


class ServerFault(RpcError):
    """The server failed; the request is not at fault."""


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


_HINTS = {  # words in a message of grpc about a failed connection: cause and fix
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate is from no trusted authority: give the right authorities (--authorities)"
    ),
    "Hostname Verification": (
        "its certificate is for another name: give that name as server_name (--server-name)"
    ),
    "WRONG_VERSION_NUMBER": "the port does not speak TLS: leave TLS out, or check the port",
    REFUSED_CONNECTION: "no server listens on this port: start one, or check host and port",
    ": Socket closed": (  # during the connection attempt; later grpc writes "(Socket closed)"
        "the server closed the connection: check the port, and whether it needs TLS"
    ),
    "HTTP/2": "the port does not speak gRPC: check the port",
    "lookup error": "the host name has no address: check the target",
    "security handshaker": (
        "the PEM files cannot be used: check authorities, certificate and private key"
    ),
}


def error_from_rpc(error: grpc.RpcError, target: str) -> RpcError:
    """The typed error for a failed call to target; raise it `from` the original."""
    code: grpc.StatusCode = error.code()
    message = " ".join((error.details() or "").split()) or f"{code.name} without a message"
    if code is grpc.StatusCode.UNAVAILABLE:
        hints = [hint for words, hint in _HINTS.items() if words in message]
        message = "; ".join((f"{target} is unreachable: {message}", *hints[:1]))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and "Deadline Exceeded" in message:  # grpc's own
        message = f"{target} did not finish in time; raise timeout_s or deadline_s"
    return _CLASSES.get(code, ServerFault)(message, code.name, _retry_after_s(error))


def cancelled_by_server(error: RpcError) -> bool:
    """Whether a call was cancelled, and not by this process: gRPC does so at random on a server
    where too many calls wait."""
    return error.code == "CANCELLED" and _CANCELLED_HERE not in str(error)


def is_loading(error: RpcError) -> bool:
    """Whether a server answered that its models are still loading."""
    return isinstance(error, Unreachable) and _LOADING in str(error)


def met_closing_connection(error: RpcError) -> bool:
    """Whether a call began as its connection ended, as by age: the server has not seen the call.

    The words may be the server's own, so they do not prove it.
    """
    return isinstance(error, Unreachable) and any(words in str(error) for words in _UNSEEN)


def ended_by_age(error: grpc.RpcError) -> bool:
    """Whether the server ended a stream because it reached the maximum age of streams."""
    info = _detail(error, error_details_pb2.ErrorInfo())
    return info is not None and (info.reason, info.domain) == (STREAM_AGED, ERROR_DOMAIN)


def _retry_after_s(error: grpc.RpcError) -> float | None:
    retry = _detail(error, error_details_pb2.RetryInfo())
    if retry is None:
        return None
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9)


def _detail(error: grpc.RpcError, empty: _Detail) -> _Detail | None:
    """Fills `empty` with the status detail of its type; None if the error has none."""
    try:
        # An error raised by a call also has the interface of grpc.Call.
        status = rpc_status.from_call(cast(grpc.Call, error))
        if any(detail.Unpack(empty) for detail in (status.details if status else ())):
            return empty
    except (ValueError, DecodeError):
        pass  # details that are damaged or contradict the status are ignored
    return None
