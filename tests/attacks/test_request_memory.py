"""Request bodies, as raw HTTP/2 frames: what the server holds before it has admitted a call."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from tests.attacks.http2 import (
    FIRST_WINDOW_BYTES,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    Connection,
    connected,
    frames_of_headers,
    message,
    request_headers,
)
from tests.hangs import HANG_S
from tests.service.harness import channel_to, refusal
from tests.service.identities import TOKENS, TWO, bearer
from tests.service.test_process import Process, bundle_at, running

GENERATE = "/labelmint.v1.LabelService/GenerateSamples"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
WAIT_S = 2.0  # without a window for so long, a body goes no further
CONNECTIONS = 4
REQUEST_MIB, RECEIVING_MIB = 8, 32
# What the interpreter, the threads and the sockets of an attack take besides bodies.
OTHER_MIB = 24
SIZES = [pytest.param(40, marks=pytest.mark.long), pytest.param(400, marks=pytest.mark.slow)]


@pytest.fixture
def process(tmp_path: Path, tokens: Path) -> Iterator[Process]:
    """A server with tokens, whose bodies may take RECEIVING_MIB."""
    flags = (
        "--token-file", str(tokens), "--max-request-bytes", str(REQUEST_MIB << 20),
        "--max-receiving-bytes", str(RECEIVING_MIB << 20), "--max-streams", "64",
    )  # fmt: skip
    with running(bundle_at(tmp_path / "fake"), "--engine", "fake", *flags) as process:
        yield process


def memory_mib(pid: int) -> int:
    """Resident memory of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS"))


def authorization(token: str | None) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())] if token else []


def upload(connection: Connection, path: str, token: str | None) -> int:
    """Sends a body but for its last byte, if the server takes it; the number of bytes it took."""
    stream = connection.new_stream()
    connection.send(frames_of_headers(stream, request_headers(path, authorization(token))))
    body = message(bytes(REQUEST_MIB << 20))[: (REQUEST_MIB << 20) - 1]
    return connection.send_body(stream, body, WAIT_S)


@contextmanager
def uploads(process: Process, path: str, calls: int, token: str | None = None) -> Iterator[int]:
    """Bodies that never end; yields the bytes that the server took of them."""
    with ExitStack() as stack, ThreadPoolExecutor(min(calls, 80)) as pool:
        connections = [stack.enter_context(connected(process.port)) for _ in range(CONNECTIONS)]
        taken = pool.map(
            lambda number: upload(connections[number % CONNECTIONS], path, token), range(calls)
        )
        yield sum(taken)


@pytest.mark.parametrize("calls", SIZES)
def test_no_body_is_received_of_a_call_without_a_token(process: Process, calls: int) -> None:
    before = memory_mib(process.popen.pid)
    with uploads(process, GENERATE, calls) as taken:
        assert taken <= calls * 2 * FIRST_WINDOW_BYTES
        assert memory_mib(process.popen.pid) - before < OTHER_MIB


@pytest.mark.parametrize(("path", "token"), [(HEALTH, None), (GENERATE, TOKENS["trainer"])])
@pytest.mark.parametrize("calls", SIZES)
def test_bodies_that_are_received_fit_the_budget(
    process: Process, path: str, token: str | None, calls: int
) -> None:
    before = memory_mib(process.popen.pid)
    with uploads(process, path, calls, token):
        assert memory_mib(process.popen.pid) - before < RECEIVING_MIB + OTHER_MIB


@pytest.mark.long
def test_bodies_that_never_end_cannot_keep_another_client_from_being_served(
    process: Process,
) -> None:
    with uploads(process, GENERATE, 40, TOKENS["night-job"]), channel_to(process.port) as channel:
        stub, metadata = LabelServiceStub(channel), bearer(TOKENS["trainer"])
        for _ in range(3):
            answer = stub.GenerateSamples(TWO, timeout=HANG_S, metadata=metadata)
            assert len(answer.batch.indices) == 2
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_S).status


@pytest.mark.long
def test_health_is_told_while_bodies_of_health_checks_never_end(process: Process) -> None:
    with uploads(process, HEALTH, 40), channel_to(process.port) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(3):
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_S).status


def test_a_connection_has_a_limit_of_open_calls_and_a_small_window(process: Process) -> None:
    with connected(process.port) as connection:
        assert connection.settings[MAX_CONCURRENT_STREAMS] == 128
        assert connection.settings[INITIAL_WINDOW_SIZE] <= FIRST_WINDOW_BYTES + 1
        headers = request_headers(GENERATE, authorization(TOKENS["trainer"]))
        for _ in range(200):
            connection.send(frames_of_headers(connection.new_stream(), headers))
        assert connection.wait(lambda: len(connection.ended) >= 200 - 128, HANG_S)


def test_calls_with_streams_of_requests_are_limited_before_they_receive_any(
    process: Process,
) -> None:
    with channel_to(process.port) as channel:
        open_call: Any = channel.stream_stream(REFLECTION)
        metadata = bearer(TOKENS["trainer"])

        def never() -> Iterator[bytes]:
            ended.result()
            yield b""

        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(process.popen.wait)
            calls = [open_call(never(), timeout=HANG_S, metadata=metadata) for _ in range(64)]
            refused = refusal(lambda: list(open_call(never(), timeout=HANG_S, metadata=metadata)))
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_streams is 64" in refused.message
            for call in calls:
                call.cancel()
            process.popen.kill()


def test_a_call_that_ends_without_a_request_is_told_so(process: Process) -> None:
    with channel_to(process.port) as channel:
        call: Any = channel.stream_unary(GENERATE)
        refused = refusal(
            lambda: call(iter(()), timeout=HANG_S, metadata=bearer(TOKENS["trainer"]))
        )
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "no request" in refused.message
