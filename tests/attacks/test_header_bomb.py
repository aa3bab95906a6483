"""Header bombs: a kilobyte of references to one header of HPACK's table, for megabytes in gRPC's
core, by a client that reads nothing. The proxy of docs/operations.md stops them."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from labelmint import Client, Tls
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
from tests.attacks.proxy import Proxy, proxied
from tests.attacks.test_request_memory import memory_mib
from tests.hangs import HANG_S
from tests.service.harness import channel_to, refusal
from tests.service.identities import write_identity
from tests.service.test_process import Process, bundle_at, running

STREAM = "/labelmint.v1.LabelService/StreamSamples"
NAME_BYTES, REFERENCES = 3_900, 12_000
STREAM_MIB = 16  # what one call of a bomb takes in gRPC's core at most; 10 were measured
OTHER_MIB = 24


def bomb(first: bool) -> bytes:
    """A header block; the first one of a connection fills the table."""
    entry = literal(b"a" * NAME_BYTES, b"v", indexed=True) if first else b""
    return request_headers(STREAM) + entry + reference(0) * REFERENCES


@contextmanager
def bombed(
    port: int, connections: int, calls: int, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Connections that send bombs and read nothing; yields the bytes that were sent."""
    sent = 0
    with ExitStack() as stack:
        for _ in range(connections):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            if tls is not None:
                sock = stack.enter_context(tls.wrap_socket(sock, server_hostname="127.0.0.1"))
                assert sock.selected_alpn_protocol() == "h2"
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
def proxy(process: Process, tmp_path: Path) -> Iterator[Proxy]:
    """nginx with the settings of docs/operations.md before the server."""
    with proxied(process.port, tmp_path) as proxy:
        yield proxy


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
    process: Process, proxy: Proxy, calls: int
) -> None:
    before = memory_mib(process.popen.pid), memory_mib(proxy.worker)
    with bombed(proxy.port, connections=4, calls=calls):
        with channel_to(proxy.port) as channel:
            list(LabelServiceStub(channel).StreamSamples(request(count=9), timeout=HANG_S))
        assert memory_mib(process.popen.pid) - before[0] < OTHER_MIB
        assert memory_mib(proxy.worker) - before[1] < OTHER_MIB


@pytest.mark.parametrize(
    "calls", [pytest.param(40, marks=pytest.mark.long), pytest.param(1000, marks=pytest.mark.slow)]
)
def test_a_proxy_with_tls_on_both_sides_keeps_header_bombs_from_the_server(
    tmp_path: Path, calls: int
) -> None:
    """As the page shows it: nginx undoes TLS, and reaches the server by TLS."""
    files = write_identity(trustme.CA(), tmp_path, "127.0.0.1")
    flags = ("--tls-certificate", str(files.certificate), "--tls-key", str(files.key))
    tls = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    tls.set_alpn_protocols(["h2"])
    with (
        running(bundle_at(tmp_path / "fake"), "--engine", "fake", *flags) as process,
        proxied(process.port, tmp_path, (files.certificate, files.key)) as proxy,
        Client(f"127.0.0.1:{proxy.port}", tls=Tls(tmp_path / "ca.pem")) as client,
    ):
        before = memory_mib(process.popen.pid), memory_mib(proxy.worker)
        batches = client.stream(batch_size=8)
        indices = next(batches).indices.tolist()
        with bombed(proxy.port, 4, calls, tls):
            for _ in range(9):
                indices += next(batches).indices.tolist()
            after = memory_mib(process.popen.pid), memory_mib(proxy.worker)
        assert after[0] - before[0] < OTHER_MIB and after[1] - before[1] < OTHER_MIB
        assert indices == list(range(80))


@pytest.mark.long
def test_streams_and_their_ends_pass_through_the_proxy(process: Process, proxy: Proxy) -> None:
    with channel_to(proxy.port) as channel:
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
