"""Errors: every status has one type, and the docstring draws the tree that there is."""

from __future__ import annotations

import re

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from labelmint import errors


class FailedCall(grpc.RpcError):
    """An error as grpc raises it, with rich details when given."""

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes = b"") -> None:
        self._code, self._details, self._status = code, details, status

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:  # type: ignore[override]
        return (("grpc-status-details-bin", self._status),) if self._status else ()


EXPECTED = {
    "UNAVAILABLE": errors.Unreachable,
    "DEADLINE_EXCEEDED": errors.TimedOut,
    "INVALID_ARGUMENT": errors.Invalid,
    "NOT_FOUND": errors.NotFound,
    "UNIMPLEMENTED": errors.NotFound,
    "FAILED_PRECONDITION": errors.NotReady,
    "OUT_OF_RANGE": errors.OutOfRange,
    "UNAUTHENTICATED": errors.Denied,
    "PERMISSION_DENIED": errors.Denied,
    "RESOURCE_EXHAUSTED": errors.Exhausted,
    "CANCELLED": errors.RpcError,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_has_its_type(code: grpc.StatusCode) -> None:
    error = errors.error_from_rpc(FailedCall(code, "why"), "here:1")
    assert type(error) is EXPECTED.get(code.name, errors.ServerFault)
    assert error.code == code.name
    assert "why" in str(error)
    assert error.next_index is None


def test_a_status_without_words_still_says_something() -> None:
    error = errors.error_from_rpc(FailedCall(grpc.StatusCode.INTERNAL, ""), "here:1")
    assert str(error) == "INTERNAL without a message"


@pytest.mark.parametrize(
    ("details", "hinted"),
    [
        ("failing; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", True),
        ("Stream removed (Socket closed)", False),  # it worked until now
    ],
)
def test_only_a_connection_that_never_worked_is_told_to_check_its_port(
    details: str, hinted: bool
) -> None:
    error = errors.error_from_rpc(FailedCall(grpc.StatusCode.UNAVAILABLE, details), "here:1")
    assert ("check the port" in str(error)) is hinted


def test_the_wait_that_the_server_asks_for_is_passed_on() -> None:
    wait = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=2, nanos=5 * 10**8)
    )
    detail = any_pb2.Any()
    detail.Pack(wait)
    status = status_pb2.Status(code=8, message="full", details=[detail])
    call = FailedCall(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", status.SerializeToString())
    assert errors.error_from_rpc(call, "here:1").retry_after_s == 2.5
    other = FailedCall(grpc.StatusCode.RESOURCE_EXHAUSTED, "other", status.SerializeToString())
    assert errors.error_from_rpc(other, "here:1").retry_after_s is None


def test_details_that_are_not_protobuf_do_not_hide_the_error() -> None:
    call = FailedCall(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", b"\xff\xff")
    assert str(errors.error_from_rpc(call, "here:1")) == "full"


def test_the_docstring_draws_the_tree() -> None:
    assert errors.__doc__
    lines = re.findall(r"^    ((?:[|`\- ]*))([A-Z]\w+) ", errors.__doc__, re.MULTILINE)
    drawn, path = {}, [""] * 9
    for indent, name in lines:
        depth = len(indent) // 4
        path[depth] = name
        drawn[name] = path[depth - 1] if depth else "Exception"
    defined = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.LabelmintError)
    }
    assert drawn == defined
