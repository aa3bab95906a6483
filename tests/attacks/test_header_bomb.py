"""Header bombs: a kilobyte of references to one header of HPACK's table, for megabytes in gRPC's
core, by a client that reads nothing. The proxy of docs/operations.md stops them."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.errors import NEXT_INDEX
from tests.attacks.http2 import (
    PREFACE,
    SETTINGS,
    frame,
    frames_of_headers,
    literal,
    reference,
    request_headers,
)
from tests.attacks.test_request_memory import memory_mib
from tests.conftest import CHECKOUT
from tests.hangs import HANG_S, eventually
from tests.service.harness import channel_to, refusal
from tests.service.test_process import Process, bundle_at, running

STREAM = "/labelmint.v1.LabelService/StreamSamples"
NAME_BYTES, REFERENCES = 3_900, 12_000
STREAM_MIB = 16  # what one call of a bomb takes in gRPC's core at most; 10 were measured
OTHER_MIB = 24
BLOCK = re.compile(r"```nginx\n(.*?)```", re.DOTALL)


def bomb(first: bool) -> bytes:
    """A header block; the first one of a connection fills the table."""
    entry = literal(b"a" * NAME_BYTES, b"v", indexed=True) if first else b""
    return request_headers(STREAM) + entry + reference(0) * REFERENCES


@contextmanager
def bombed(port: int, connections: int, calls: int) -> Iterator[int]:
    """Connections that send bombs and read nothing; yields the bytes that were sent."""
    sent = 0
    with ExitStack() as stack:
        for _ in range(connections):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            with suppress(OSError):  # the server may hang up
                sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
                for number in range(calls):
                    data = frames_of_headers(2 * number + 1, bomb(not number), end_stream=True)
                    sock.sendall(data)
                    sent += len(data)
        yield sent


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A server with few calls for each connection."""
    flags = ("--engine", "fake", "--max-connection-streams", "4")
    with running(bundle_at(tmp_path / "fake"), *flags) as process:
        yield process


@pytest.fixture
def proxy(process: Process, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """nginx with the settings of docs/operations.md before the server: its port and worker."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("nginx is not installed (Debian's package nginx-light has it)")
    documented = BLOCK.search((CHECKOUT / "docs/operations.md").read_text())
    assert documented
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings, replaced = re.subn(
        r"listen 443 ssl http2;.*ssl_certificate_key [^;]*;",
        f"listen 127.0.0.1:{port} http2;",
        documented[1],
        flags=re.DOTALL,
    )
    assert replaced == 1
    settings, replaced = re.subn(r"grpcs://\S+;", f"grpc://127.0.0.1:{process.port};", settings)
    assert replaced == 1
    own = "".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; worker_processes 1;"
        f"events {{}} http {{ access_log off; {own} {settings} }}"
    )
    with subprocess.Popen([nginx, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "log"]) as popen:
        try:
            children = Path(f"/proc/{popen.pid}/task/{popen.pid}/children")
            assert eventually(lambda: popen.poll() is not None or children.read_text())
            yield port, int(children.read_text().split()[0])
        finally:
            popen.terminate()


@pytest.mark.long
def test_calls_with_header_bombs_are_as_many_as_a_connection_may_open(process: Process) -> None:
    """What one of them takes, no option of gRPC limits."""
    before = memory_mib(process.popen.pid)
    with bombed(process.port, connections=4, calls=40):
        assert memory_mib(process.popen.pid) - before < 4 * 4 * STREAM_MIB + OTHER_MIB


@pytest.mark.parametrize(
    "calls", [pytest.param(40, marks=pytest.mark.long), pytest.param(1000, marks=pytest.mark.slow)]
)
def test_a_proxy_keeps_header_bombs_from_the_server(
    process: Process, proxy: tuple[int, int], calls: int
) -> None:
    port, worker = proxy
    before = memory_mib(process.popen.pid), memory_mib(worker)
    with bombed(port, connections=4, calls=calls):
        with channel_to(port) as channel:
            list(LabelServiceStub(channel).StreamSamples(request(count=9), timeout=HANG_S))
        assert memory_mib(process.popen.pid) - before[0] < OTHER_MIB
        assert memory_mib(worker) - before[1] < OTHER_MIB


@pytest.mark.long
def test_streams_and_their_ends_pass_through_the_proxy(
    process: Process, proxy: tuple[int, int]
) -> None:
    with channel_to(proxy[0]) as channel:
        stub = LabelServiceStub(channel)
        messages = stub.StreamSamples(request(count=100), timeout=HANG_S)
        assert sum(len(message.batch.indices) for message in messages) == 100
        endless = stub.StreamSamples(request(), timeout=HANG_S)
        position = next(iter(endless)).next_index
        process.popen.send_signal(signal.SIGTERM)
        ended = refusal(lambda: [message.next_index for message in endless])
        assert ended.code is grpc.StatusCode.UNAVAILABLE and "draining" in ended.message
        assert int(ended.trailers[NEXT_INDEX]) >= position


def request(**query: Any) -> pb.StreamSamplesRequest:
    return pb.StreamSamplesRequest(query=pb.SampleQuery(**query))
