"""Errors of the service, and the table from exceptions to gRPC statuses.

ServiceError
├── BadRequest          INVALID_ARGUMENT: a field is out of range, or fields exclude each other
├── UnknownModel        NOT_FOUND
├── FailedPrecondition  FAILED_PRECONDITION: the bundle lacks what the request needs
├── LoadFailed          FAILED_PRECONDITION: a bundle cannot be served; an older one stays
├── RangeExhausted      OUT_OF_RANGE: max_examined reached, the latent source has no more rows, or
│                       nothing met a predicate for long
├── Overloaded          RESOURCE_EXHAUSTED: a limit of this server or of this client, for now
├── NotServing          UNAVAILABLE: loading or draining
│   └── StreamExpired   with ErrorInfo, so that clients resume at once and count no failure
├── PermissionDenied    PERMISSION_DENIED: for administrators only
├── Disabled            UNIMPLEMENTED: this server was started without the option
└── StartError          never sent: the process cannot start
"""

import logging
import math
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from bundle.errors import NotCalibrated
from engines.errors import BundleLacks, NotFiniteError, SamplingError
from labelmint.errors import ERROR_DOMAIN, STREAM_AGED
from service.logs import request_id

NEXT_INDEX = "labelmint-next-index"  # key of trailing metadata: index from which to resume
# Clients refuse statuses of more than 8 KiB, and percent-encoding may triple the bytes.
MAX_MESSAGE_BYTES = 1500

_log = logging.getLogger(__name__)


class ServiceError(Exception):
    """Base class of this package's errors. Messages are for the caller: value, limit and fix."""


class BadRequest(ServiceError):
    """A field is out of range, or fields exclude each other."""


class UnknownModel(ServiceError):
    """No model of that name is served."""


class FailedPrecondition(ServiceError):
    """The bundle lacks what the request needs, or is not the bundle_id that the request pins."""


class RangeExhausted(ServiceError):
    """The stream cannot examine further indices and has not delivered `count` samples."""


class Overloaded(ServiceError):
    """A limit of this server or of this client is reached.

    Attributes:
        retry_after_s: seconds after which a retry may succeed.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotServing(ServiceError):
    """The server is loading or draining; a retry later or at another replica may succeed."""


class StreamExpired(NotServing):
    """The stream reached the server's maximum age; the client can resume it at any replica."""


class LoadFailed(ServiceError):
    """A bundle cannot be served; the message contains no path of this machine."""


class PermissionDenied(ServiceError):
    """The call needs an administrator's token."""


class Disabled(ServiceError):
    """The call needs an option that this server was started without."""


class StartError(ServiceError):
    """The process cannot start; it prints the message, which is one line."""


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (SamplingError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownModel, grpc.StatusCode.NOT_FOUND),
    (FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
    (BundleLacks, grpc.StatusCode.FAILED_PRECONDITION),
    (NotCalibrated, grpc.StatusCode.FAILED_PRECONDITION),
    (LoadFailed, grpc.StatusCode.FAILED_PRECONDITION),
    (RangeExhausted, grpc.StatusCode.OUT_OF_RANGE),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotServing, grpc.StatusCode.UNAVAILABLE),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Disabled, grpc.StatusCode.UNIMPLEMENTED),
    (NotFiniteError, grpc.StatusCode.DATA_LOSS),
)


@dataclass(frozen=True)
class Status:
    """How a gRPC call ends."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]  # trailing


def status_from_error(error: Exception) -> Status:
    """The status for an exception, by the table above.

    Other exceptions become INTERNAL, with the request id under which they are logged.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            data = str(error).encode(errors="replace")[:MAX_MESSAGE_BYTES]
            text = data.decode(errors="ignore")
            return Status(code, text, _metadata(error, code, text))
    _log.error("a call failed: %s", error, exc_info=error)
    message = f"internal error; see the server's log, request id {request_id.get()}"
    return Status(grpc.StatusCode.INTERNAL, message, ())


def _metadata(
    error: Exception, code: grpc.StatusCode, text: str
) -> tuple[tuple[str, str | bytes], ...]:
    """Error details for programs."""
    if isinstance(error, StreamExpired):
        info = error_details_pb2.ErrorInfo(reason=STREAM_AGED, domain=ERROR_DOMAIN)
        return (_details(code, text, info),)
    if isinstance(error, Overloaded):
        milliseconds = math.ceil(error.retry_after_s * 1000)
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(milliseconds)
        retry = error_details_pb2.RetryInfo(retry_delay=delay)
        return _details(code, text, retry), ("grpc-retry-pushback-ms", str(milliseconds))
    return ()


def _details(code: grpc.StatusCode, text: str, message: Message) -> tuple[str, bytes]:
    detail = any_pb2.Any()
    detail.Pack(message)
    status = status_pb2.Status(code=code.value[0], message=text, details=[detail])
    return "grpc-status-details-bin", status.SerializeToString()
