"""Clients that do not read, send half of a request, or leave: nobody waits for them, and the server
ends at once and without a word."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from studio.connections import MAX_CONNECTIONS, PatientProtocol
from tests.interrupts import INTERRUPTIBLE
from tests.studio.chromium import CHECKOUT
from tests.studio.conftest import TAB, Served, serving

LARGE = 16 << 20  # bytes, which the buffers of a connection do not take


def enlarge(served: Served) -> None:
    """Makes the file of an image too large for the buffers of a connection."""
    (served.folder / "images" / "000.png").write_bytes(bytes(LARGE))


def connected(served: Served, text: str, *lines: str) -> socket.socket:
    """A connection with a request as the page sends it, whose answer nobody reads."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", served.port))
    head = [
        f"{text} HTTP/1.1", f"host: 127.0.0.1:{served.port}",
        f"origin: http://127.0.0.1:{served.port}", f"cookie: {served.cookie % served.port}",
        f"x-studio-tab: {TAB}", *lines,
    ]  # fmt: skip
    one.sendall("\r\n".join([*head, "", ""]).encode())
    return one


HALF_BODY = ("PUT /api/images/001/mask", 'if-match: "none"', "content-length: 1024",
             "expect: 100-continue")  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("request_", [("GET /images/000",), HALF_BODY], ids=["answer", "body"])
def test_connections_that_are_stuck_lock_nobody_out(
    served: Served, request_: tuple[str, ...]
) -> None:
    """One that is being answered was never taken for stuck, and every tab got 503."""
    enlarge(served)
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 40):
            one = stack.enter_context(closing(connected(served, *request_)))
            assert one.recv(1) == b"H", "it is being answered, or asked for its body"
        for _ in range(5):
            assert served.request("GET", "/api/project").status == 200


@pytest.mark.long
def test_a_tab_is_not_put_out_by_programs_without_the_token(served: Served) -> None:
    """Whatever it does: an answer that it reads slowly, a body that comes slowly, a stream. Those
    were the oldest, and made room first."""
    enlarge(served)
    stream = served.open_stream(TAB)
    with ExitStack() as stack:
        slow = stack.enter_context(closing(connected(served, "GET /images/000")))
        keys = " ".join(card["keys"][-1] for card in served.listed())
        body = (*HALF_BODY, f"x-studio-classes: {keys}")
        half = stack.enter_context(closing(connected(served, *body)))
        assert slow.recv(1) == half.recv(1) == b"H"
        for number in range(2 * MAX_CONNECTIONS):
            one = stack.enter_context(closing(socket.create_connection(("127.0.0.1", served.port))))
            if number % 2:
                one.sendall(b"PUT /api/classes HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1")
                assert one.recv(1) == b"H"
        half.sendall(bytes(1024))
        assert b"HTTP/1.1 204" in half.recv(4096) + half.recv(4096)
        taken = 1
        while data := slow.recv(1 << 20):
            taken += len(data)
        assert taken > LARGE
        assert served.send("POST", "/api/images/002/hold", {"tab": TAB}).status == 204
        while b"002" not in stream.readline():
            pass


class HastyProtocol(PatientProtocol):
    """As a studio's connections, in less time."""

    patience_s = 0.3


def test_an_answer_is_not_cut_short_while_somebody_reads_it() -> None:
    """Such as an archive of labels over a slow line: it is one piece, and was cut after 20 s."""

    class Line(asyncio.Transport):
        """The end of a line that has taken some of what was written by the next look."""

        unread, aborted = LARGE, False

        def get_write_buffer_size(self) -> int:
            return self.unread

        def abort(self) -> None:
            self.aborted = True

        def is_closing(self) -> bool:
            return self.aborted

    async def read() -> None:
        config = uvicorn.Config(lambda: None, http=HastyProtocol, ws="none", lifespan="off")
        config.load()
        protocol = HastyProtocol(config, uvicorn.Server(config).server_state, {})
        line = Line()
        protocol.connection_made(line)
        protocol.pause_writing()
        for _ in range(3):
            line.unread -= 1
            protocol.look()
            assert protocol.is_waiting and not line.aborted
        protocol.look()
        assert line.aborted, "nobody reads any more"

    asyncio.run(read())


@pytest.mark.parametrize("kind", ["answer", "body"])
def test_nobody_is_waited_for_who_neither_reads_nor_sends(kind: str) -> None:
    """The application's call ends with the connection, and its log has nothing of it."""

    async def attack() -> None:
        ended = asyncio.Event()

        async def application(scope: object, receive: Any, send: Any) -> None:
            if kind == "body":
                while (await receive())["type"] != "http.disconnect":
                    pass
            await send({"type": "http.response.start", "status": 200})
            for _ in range(LARGE >> 16):
                await send(
                    {"type": "http.response.body", "body": bytes(1 << 16), "more_body": True}
                )
            await send({"type": "http.response.body"})
            ended.set()

        config = uvicorn.Config(application, http=HastyProtocol, ws="none", lifespan="off")
        config.load()
        server, loop = uvicorn.Server(config), asyncio.get_running_loop()
        made = await loop.create_server(
            lambda: HastyProtocol(config, server.server_state, {}, loop), "127.0.0.1", 0
        )
        with socket.create_connection(made.sockets[0].getsockname()) as one:
            length = 1000 if kind == "body" else 0
            one.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % length)
            await ended.wait()
        made.close()

    asyncio.run(attack())


def test_a_server_ends_in_time_and_silence_while_nobody_reads(
    tiny_weights: tuple[Path, Path], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And while candidates wait for their turn at the generator."""
    candidate = ("GET /candidates/7",)
    stuck = (("GET /images/000",), HALF_BODY, ("GET /images/000", "connection: close"), candidate)
    opened = json.dumps({"tab": TAB})  # reads features in the background
    with ExitStack() as stack:
        with serving(tiny_weights[0], project) as served:
            enlarge(served)
            taken = stack.enter_context(ExitStack())
            taken.enter_context(served.studio.turns.later())
            for request in stuck:
                for _ in range(20):
                    one = stack.enter_context(closing(connected(served, *request)))
                    if request != candidate:
                        assert one.recv(1) == b"H"
            assert served.request("GET", "/api/project").status == 200
            assert served.request("POST", "/api/images/002/hold", opened).status == 204
        assert capfd.readouterr().err == ""


# The command; another signal comes while its learner is ended, and while the interpreter ends.
HASTY = """
import atexit, os, signal, sys
import studio.__main__ as command

def hurry():
    os.kill(os.getpid(), signal.SIGINT)

close = command.Learner.close
command.Learner.close = lambda learner: (hurry(), close(learner), print("ended"))
atexit.register(hurry)
command.run()
"""


@pytest.mark.long
def test_a_second_ctrl_c_while_the_studio_ends_changes_nothing_and_is_not_written_of(
    tiny_weights: tuple[Path, Path], project: Path
) -> None:
    """It was a traceback, and the learner and the minutes of work were left as they were."""
    words = ["--generator", str(tiny_weights[0]), "--project", str(project)]
    with subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-c", HASTY, *words, "--listen", "127.0.0.1:0"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = re.search(r"http://([0-9.:]+)/", process.stdout.readline())
        assert found is not None
        with closing(http.client.HTTPConnection(found[1], timeout=60)) as connection:
            connection.request("GET", "/")
            assert connection.getresponse().read(), "it serves"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    told = "stopped; every stroke that the server has received is saved\n"
    assert (out, errors, process.returncode) == ("ended\n", told, 128 + signal.SIGINT)


def test_a_client_that_leaves_in_mid_request_is_not_written_of(
    tiny_weights: tuple[Path, Path], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(tiny_weights[0], project) as served:
        for _ in range(3):
            with closing(connected(served, *HALF_BODY)) as one:
                assert one.recv(1) == b"H"
                one.sendall(bytes(100))
    assert capfd.readouterr().err == ""
