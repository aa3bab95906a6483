"""The HTTP port answers probes whatever else is connected to it."""

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.probes import MAX_CONNECTIONS, MAX_HEAD_BYTES, Probes, probe_server
from tests.hangs import HANG_S, eventually


def sources() -> Probes:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    return Probes(lambda: True, lambda: False, registry)


@pytest.fixture
def port() -> Iterator[int]:
    with probe_server("127.0.0.1", 0, sources()) as port:
        yield port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HANG_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_and_metrics_are_answered(port: int) -> None:
    assert get(port, "/healthz") == (200, "alive\n")
    assert get(port, "/readyz?verbose") == (503, "loading, draining, or a device is lost\n")
    assert "things_total 1.0" in get(port, "/metrics")[1]
    assert get(port, "/other")[0] == 404


def test_silent_connections_take_no_thread_and_keep_no_probe_out(port: int) -> None:
    before = set(threading.enumerate())
    with ExitStack() as stack:
        silent = []
        for number in range(4 * MAX_CONNECTIONS):
            silent.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
            if number % 2:
                silent[-1].sendall(b"GET /metrics HTTP/1.1\r\nAccept")
        assert get(port, "/healthz")[0] == 200
        assert set(threading.enumerate()) <= before  # those of tests before may end
        hung_up = silent[: 2 * MAX_CONNECTIONS]
        assert all(read_to_the_end(caller) == b"" for caller in hung_up)  # the oldest ones
    assert get(port, "/healthz")[0] == 200


def test_a_slow_caller_is_hung_up_on() -> None:
    """Also one that sends a byte now and then."""
    with (
        probe_server("127.0.0.1", 0, sources(), timeout_s=0.5) as port,
        socket.create_connection(("127.0.0.1", port), HANG_S) as caller,
    ):

        def refused() -> bool:
            try:
                caller.sendall(b"x")
            except OSError:
                return True
            return False

        assert eventually(refused, every_s=0.1)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"x" * 4 * MAX_HEAD_BYTES,
        b"\xff\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
    ],
)
def test_no_request_of_http_harms_the_server(port: int, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), HANG_S) as caller:
        with contextlib.suppress(OSError):
            caller.sendall(request_bytes)
        assert b" 200 " not in read_to_the_end(caller)
    assert get(port, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "accept", ["version=abc", "version=1." + "9" * 5000, "version=\u0663", "q=x;=;,,;version="]
)
def test_a_header_that_cannot_be_read_is_none(
    port: int, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody without a token fills the log with tracebacks."""
    head = f"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;{accept}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), HANG_S) as caller:
        caller.sendall(head.encode())
        assert read_to_the_end(caller).startswith(b"HTTP/1.1 200 ")
    assert not caplog.records


def read_to_the_end(caller: socket.socket) -> bytes:
    caller.settimeout(HANG_S)
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := caller.recv(1 << 16):
            received += data
    return received
