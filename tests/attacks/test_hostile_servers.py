"""Servers that close each connection in good order: the client's tries and memory are bounded.

GOAWAY with the last stream 0 and no error says that no call was seen. gRPC's own retries would
repeat such a call without end, at 650 MiB of memory a second.
"""

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from labelmint.errors import Unreachable
from labelmint.load.calls import MeteredConnection
from tests.attacks.http2 import GOAWAY, SETTINGS, frame
from tests.conftest import CHECKOUT
from tests.hangs import HANG_S

CLOSING = frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0) + b"max_age")
PATH = b"/labelmint.v1.LabelService/"
# Tries within a patience of 2 s: the first, one at once, and after 0.1, 0.2, 0.4 and 0.8 s.
MOST_TRIES, MOST_MIB = 6, 48
Serve = Callable[[socket.socket], object]  # one connection, after the server's SETTINGS
CLIENT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from labelmint import Client, Patience
from labelmint.errors import Unreachable
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
target, *calls = sys.argv[1:]
for call in calls:
    patience = Patience(connect_s=2.0)
    with Client(target, patience=patience, shared_memory=call == "shared") as client:
        before = peak()
        try:
            client.models() if call == "unary" else next(client.stream(count=1))
        except Unreachable as error:
            print(client.reconnects, peak() - before, error)
"""
CALLS = ("unary", "stream", "shared")


def at_once(sock: socket.socket) -> None:
    """The first and last word, before any call; the client hangs up."""
    sock.sendall(CLOSING)
    drain(sock)


def and_closes(sock: socket.socket) -> None:
    sock.sendall(CLOSING)


def at_a_call(sock: socket.socket) -> None:
    if call_comes(sock):
        at_once(sock)


def call_comes(sock: socket.socket) -> bool:
    """Waits for a call; False if the client hangs up before it."""
    received = b""
    while PATH not in received and (data := sock.recv(1 << 16)):
        received += data
    return PATH in received


def drain(sock: socket.socket) -> None:
    while sock.recv(1 << 16):
        pass


@contextmanager
def listening(serve: Serve) -> Iterator[str]:
    """A target whose connections are served so, each in a thread."""
    stop = threading.Event()

    def one(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.sendall(frame(SETTINGS, 0, 0))
            serve(sock)

    def accept() -> None:
        with suppress(OSError):
            while not stop.is_set():
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(accept)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("serve", [at_once, and_closes, at_a_call])
def test_a_server_that_closes_every_connection_is_given_up(serve: Serve) -> None:
    with listening(serve) as target:
        ended = subprocess.run(
            [sys.executable, "-c", CLIENT, target, *CALLS],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=HANG_S,
        )  # fmt: skip
    assert not ended.returncode, ended.stderr
    for call, line in zip(CALLS, ended.stdout.splitlines(), strict=True):
        reconnects, more_mib, error = line.split(maxsplit=2)
        assert target in error and "Stream removed" in error, call
        assert int(reconnects) <= MOST_TRIES - 2 and int(more_mib) < MOST_MIB, call


def test_a_measured_request_that_meets_the_end_of_its_connection_is_sent_again_once() -> None:
    calls: list[None] = []

    def serve(sock: socket.socket) -> None:
        if call_comes(sock):
            calls.append(None)
            at_once(sock)

    with (
        listening(serve) as target,
        MeteredConnection(target, None) as connection,
        pytest.raises(Unreachable, match="GOAWAY"),
    ):
        connection.generate({"model": "m", "count": 1}, timeout_s=HANG_S)
    assert len(calls) == 2
