"""Floods of short connections: each begins as many calls as it may and hangs up. gRPC has no limit
of new connections, so the proxy of docs/operations.md has one of new calls."""

import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint import Client, Tls
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import ServerLimits
from tests.attacks.http2 import PREFACE, SETTINGS, call, frame
from tests.attacks.proxy import proxied
from tests.attacks.test_request_memory import memory_mib
from tests.hangs import HANG_S
from tests.service.harness import channel_to
from tests.service.identities import TOKENS, bearer, write_identity
from tests.service.test_process import Process, bundle_at, running

STREAM = "/labelmint.v1.LabelService/StreamSamples"
ATTACKERS, ATTACKER = 8, "127.0.0.2"  # another address than the honest client's
CALLS = PREFACE + frame(SETTINGS, 0, 0)
CALLS += b"".join(call(STREAM, 2 * n + 1) for n in range(ServerLimits.max_connection_streams))
OTHER_MIB = 24
REFUSED = re.compile(r'labelmint_requests_total\{code="UNAUTHENTICATED",method=""\} (\S+)')
SECONDS = [pytest.param(2, marks=pytest.mark.long), pytest.param(20, marks=pytest.mark.slow)]


@pytest.fixture
def process(tmp_path: Path, tokens: Path) -> Iterator[Process]:
    flags = ("--engine", "fake", "--token-file", str(tokens), "--log-level", "error")
    with running(bundle_at(tmp_path / "fake"), *flags) as process:
        yield process


@contextmanager
def flooded(port: int, linger_s: float) -> Iterator[list[int]]:
    """Attackers without a token, while the block runs; yields the calls that each has begun.

    Each hangs up after `linger_s`, in which some of its calls may reach the server.
    """
    stop, begun = threading.Event(), [0] * ATTACKERS

    def attack(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError), socket.socket() as sock:  # it may hang up first
                sock.settimeout(HANG_S)
                sock.bind((ATTACKER, 0))
                sock.connect(("127.0.0.1", port))
                sock.sendall(CALLS)
                begun[number] += ServerLimits.max_connection_streams
                stop.wait(linger_s)

    with ThreadPoolExecutor(ATTACKERS) as pool:
        attacks = [pool.submit(attack, number) for number in range(ATTACKERS)]
        try:
            yield begun
        finally:
            stop.set()
        assert not [one for one in attacks if one.exception()]


@pytest.mark.parametrize("linger_s", [0.0, 0.1])
@pytest.mark.parametrize("seconds", SECONDS)
def test_a_proxy_keeps_floods_of_short_connections_from_checks_and_streams(
    process: Process, tmp_path: Path, seconds: int, linger_s: float
) -> None:
    before = memory_mib(process.popen.pid)
    with proxied(process.port, tmp_path) as proxy, channel_to(proxy.port) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        messages = LabelServiceStub(channel).StreamSamples(
            pb.StreamSamplesRequest(), timeout=HANG_S, metadata=bearer(TOKENS["trainer"])
        )
        indices: list[int] = []
        began = time.monotonic()
        with flooded(proxy.port, linger_s) as begun:
            while time.monotonic() < began + seconds:
                time.sleep(1 / proxy.rate)  # the honest client stays below its own rate
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_S).status
                indices += next(messages).batch.indices
                assert memory_mib(process.popen.pid) - before < OTHER_MIB
        granted = proxy.burst + proxy.rate * (time.monotonic() - began)
        assert indices == list(range(len(indices))) != []
        messages.cancel()
        assert sum(begun) > 2 * granted
        refused = REFUSED.search(process.get("/metrics")[1])
        assert float(refused[1] if refused else 0) <= granted + 1


@pytest.mark.long
def test_a_client_beyond_the_proxys_rate_is_told_that_the_server_is_unavailable(
    process: Process, tmp_path: Path
) -> None:
    """Which is what labelmint's client repeats."""
    with proxied(process.port, tmp_path) as proxy, channel_to(proxy.port) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        codes: Counter[grpc.StatusCode] = Counter()
        check = partial(health.Check.future, health_pb2.HealthCheckRequest(), timeout=HANG_S)
        for _ in range(20):  # several times what the rate allows meanwhile
            for one in [check() for _ in range(proxy.burst)]:
                codes[one.code()] += 1
        assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert codes[grpc.StatusCode.OK] >= proxy.burst


@pytest.mark.long
def test_the_proxy_with_tls_as_the_page_shows_it_streams_and_limits(
    tmp_path: Path, tokens: Path
) -> None:
    """TLS to the proxy, with HTTP/2 agreed on in the handshake, and TLS from it to the server."""
    files = write_identity(trustme.CA(), tmp_path, "127.0.0.1")
    given = (files.certificate, files.key)
    flags = (
        "--engine", "fake", "--token-file", str(tokens), "--log-level", "error",
        "--tls-certificate", str(given[0]), "--tls-key", str(given[1]),
    )  # fmt: skip
    token = TOKENS["trainer"]
    with (
        running(bundle_at(tmp_path / "fake"), *flags) as process,
        proxied(process.port, tmp_path, given) as proxy,
        Client(f"127.0.0.1:{proxy.port}", token=token, tls=Tls(tmp_path / "ca.pem")) as client,
    ):
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        context.set_alpn_protocols(["h2"])
        batches = client.stream(batch_size=8)
        indices = next(batches).indices.tolist()
        for _ in range(2 + 2 * proxy.burst // ServerLimits.max_connection_streams):
            with (
                socket.create_connection((process.host, proxy.port), HANG_S) as sock,
                context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
            ):
                assert secure.selected_alpn_protocol() == "h2"
                secure.sendall(CALLS)
                assert secure.recv(1 << 16)
            indices += next(batches).indices.tolist()
        assert indices == list(range(len(indices)))
        refused = REFUSED.search(process.get("/metrics")[1])
        assert float(refused[1] if refused else 0) <= proxy.burst + 10 * proxy.rate
        with grpc.secure_channel(
            f"127.0.0.1:{proxy.port}",
            grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes()),
        ) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            check = partial(health.Check.future, health_pb2.HealthCheckRequest(), timeout=HANG_S)
            ends = Counter(one.code() for one in [check() for _ in range(3 * proxy.burst)])
        assert ends.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert list(next(batches).indices) == list(range(len(indices), len(indices) + 8))
