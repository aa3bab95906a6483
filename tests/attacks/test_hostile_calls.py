"""Callers that break no rule of HTTP/2 and read nothing cannot hold the server, nor each other."""

import asyncio
import gc
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import ServerLimits
from service.delivery import FilteredRows, KeptSamples
from service.process import EXIT_BY_SECOND_SIGNAL
from service.rpc.bodies import MAX_NAME_BYTES
from service.rpc.health import MAX_CLIENT_WATCHES
from service.server import Server
from tests.attacks.http2 import call, connected, reset
from tests.hangs import HANG_S, eventually
from tests.service.harness import channel_to, refusal, served
from tests.service.identities import config
from tests.service.test_process import ROOT, bundle_at, running

WATCH = "/grpc.health.v1.Health/Watch"
LIMIT_S = 60  # for what takes under a second; without the fixes it takes for ever
CHECK = "/grpc.health.v1.Health/Check"
CONNECTION_CALLS = ServerLimits.max_connection_streams
ATTACKERS, HONEST_CHECKS, STALLED = 40, 12, 8
STREAM_SAMPLES = "/labelmint.v1.LabelService/StreamSamples"


def test_a_watch_with_a_closed_window_does_not_hold_health_or_readiness() -> None:
    with served() as server, connected(server.server.port, window=0) as hostile:
        for _ in range(20):
            hostile.send(call(WATCH, hostile.new_stream()))
        time.sleep(0.5)  # every one of them waits for its window by now
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        asked = health_pb2.HealthCheckRequest()
        seen = iter(health.Watch(asked, timeout=HANG_S))
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING

        async def unload(running: Server) -> None:
            await asyncio.wait_for(running.repository.unload("fake"), LIMIT_S)

        server.call(unload)
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        assert next(seen).status == not_serving
        assert health.Check(asked, timeout=HANG_S).status == not_serving


@pytest.mark.parametrize("path", [WATCH, STREAM_SAMPLES])
def test_no_closed_window_holds_the_drain(path: str, tmp_path: Path) -> None:
    flags = ("--engine", "fake", "--drain-grace", "0.5")
    with (
        running(bundle_at(tmp_path / "fake"), *flags) as process,
        connected(process.port, window=0) as hostile,
        socket.create_connection((process.host, process.port)),  # and one that says nothing
        socket.create_connection((process.host, process.metrics_port)),
    ):
        for _ in range(20):
            hostile.send(call(path, hostile.new_stream()))
        time.sleep(0.5)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(LIMIT_S) == 0


def rows_in_memory(before: list[FilteredRows | KeptSamples]) -> list[FilteredRows | KeptSamples]:
    """Rows that this process holds, except those from before."""
    gc.collect()
    rows = [one for one in gc.get_objects() if isinstance(one, FilteredRows | KeptSamples)]
    return [one for one in rows if not any(one is other for other in before)]


@pytest.mark.parametrize("window", [0, 1 << 15])  # behind the first write, and behind a later one
def test_nobody_who_does_not_read_keeps_an_unloaded_model_in_memory(window: int) -> None:
    """Its streams wait in a write of gRPC until they read or leave, and its drain is over."""
    query = pb.SampleQuery(max_message_bytes=1 << 14)  # 2 samples
    body = pb.StreamSamplesRequest(query=query).SerializeToString()
    before = rows_in_memory([])
    with (
        served(config=config(model_drain_s=0.1)) as server,
        connected(server.server.port, window=window) as hostile,
    ):
        model: Any = server.server.repository.models["fake"]  # of FakeEngine and FakeMapping
        for _ in range(STALLED):
            hostile.send(call(STREAM_SAMPLES, hostile.new_stream(), body))
        # Each has drawn what it may; the last ones of it wait for the reader.
        assert eventually(lambda: len(model.streams) == STALLED and not model.scheduler.waiting())
        server.call(lambda running: running.repository.unload("fake"))
        assert eventually(lambda: all(engine._contract.closed for engine in model.engines))
        assert model.mapping.closed
        assert not any(one.arrays for one in rows_in_memory(before))  # or all of its engine's stays
        assert len(model.streams) == STALLED  # which count for the limits of their client
    assert eventually(lambda: not model.streams)


@pytest.mark.parametrize("window", [0, 1 << 15])
def test_a_caller_who_leaves_without_reading_logs_no_traceback(
    window: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers could fill the log with them."""
    query = pb.SampleQuery(max_message_bytes=1 << 14)
    body = pb.StreamSamplesRequest(query=query).SerializeToString()
    with served() as server:
        model = server.server.repository.models["fake"]
        with connected(server.server.port, window=window) as hostile:
            for _ in range(STALLED):
                hostile.send(call(STREAM_SAMPLES, hostile.new_stream(), body))
            assert eventually(lambda: len(model.streams) == STALLED)
            assert eventually(lambda: not model.scheduler.waiting())
        assert eventually(lambda: not model.streams)
    assert not [one.getMessage() for one in caplog.records if one.exc_info]


@pytest.mark.slow
def test_rapid_resets_cancel_no_honest_check(tmp_path: Path) -> None:
    """Of callers that send and cancel health checks as fast as they can, without a token."""
    stop = threading.Event()

    def attack(port: int) -> None:
        with connected(port) as hostile:
            while not stop.is_set():
                streams = [hostile.new_stream() for _ in range(100)]
                if not hostile.send(b"".join(call(CHECK, s) + reset(s) for s in streams)):
                    return

    flags = ("--engine", "fake", "--log-level", "error")
    with (
        ThreadPoolExecutor(ATTACKERS) as pool,  # left last: the server's end is the attackers'
        running(bundle_at(tmp_path / "fake"), *flags) as process,
        channel_to(process.port) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        attacks = [pool.submit(attack, process.port) for _ in range(ATTACKERS)]
        try:
            for _ in range(HONEST_CHECKS):
                health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        finally:
            stop.set()
        assert not [one for one in attacks if one.done() and one.exception()]


def test_a_client_has_a_limit_of_watches() -> None:
    """They need no token, and would stay open for ever."""
    asked = health_pb2.HealthCheckRequest()
    with served() as server:
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        watches = server.server._health._watches
        with ExitStack() as stack:
            for _ in range(MAX_CLIENT_WATCHES // CONNECTION_CALLS):
                hostile = stack.enter_context(connected(server.server.port))
                for _ in range(CONNECTION_CALLS):
                    hostile.send(call(WATCH, hostile.new_stream()))
            assert eventually(lambda: watches.total() == MAX_CLIENT_WATCHES)
            refused = refusal(lambda: list(health.Watch(asked, timeout=HANG_S)))
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(MAX_CLIENT_WATCHES) in refused.message
            assert health.Check(asked, timeout=HANG_S).status
        assert eventually(lambda: not watches)
        assert next(iter(health.Watch(asked, timeout=HANG_S))).status


@pytest.mark.parametrize("tag", [b"\x0a", b"\xfa\x07"], ids=["name", "unknown field"])
@pytest.mark.parametrize(
    "method",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_a_request_of_grpcs_own_services_has_a_limit_of_bytes(method: str, tag: bytes) -> None:
    """A watch holds its request: 256 of 64 MiB could take 16 GiB, without a token."""
    with served() as server:
        call: Any = server.channel.stream_stream(f"/{method}")
        request = tag + b"\x80\x80\x40" + bytes(1 << 20)
        refused = refusal(lambda: next(call(iter([request]), timeout=HANG_S)))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert str(MAX_NAME_BYTES) in refused.message
        assert next(call(iter([b""]), timeout=HANG_S))
        refused = refusal(lambda: next(call(iter([b"\xff"]), timeout=HANG_S)))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


def test_what_a_drain_waits_for_has_an_end_though_nobody_reads_the_log() -> None:
    script = (
        "import logging, threading\n"
        "from service.process import exit_after\n"
        "logging.basicConfig()\n"
        "exit_after(begin := threading.Event(), 0.2)\n"
        "begin.set()\n"
        "while True:\n"
        "    logging.warning('x' * 1000)\n"  # until the pipe is full
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


def test_what_a_drain_waits_for_has_an_end() -> None:
    """Even if the event loop hangs."""
    script = (
        "import asyncio, threading, time\n"
        "from service.process import exit_after\n"
        "async def hang() -> None:\n"
        "    exit_after(begin := threading.Event(), 0.2)\n"
        "    begin.set()\n"
        f"    time.sleep({HANG_S})\n"
        "asyncio.run(hang())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert ended.returncode == 0
    assert "has not stopped in 0.2 s" in ended.stderr


def test_a_main_thread_that_nothing_interrupts_does_not_hold_the_signal() -> None:
    """It hangs as in a file on a disk that does not answer: Python's handlers do not run."""
    script = (
        "import asyncio, ctypes, sys\n"
        "from service.process import _handle_signals\n"
        "async def hang() -> None:\n"
        "    _handle_signals(asyncio.Event(), float(sys.argv[1]))\n"
        "    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)\n"
        "    print('hangs', flush=True)\n"
        "    lock(mutex), lock(mutex)\n"
        "asyncio.run(hang())\n"
    )
    for signals, limit_s, code in ((1, 0.2, 0), (2, HANG_S, EXIT_BY_SECOND_SIGNAL)):
        command = [sys.executable, "-c", script, str(limit_s)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout and process.stdout.readline() == "hangs\n"
                time.sleep(0.1)
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.05)
                assert process.wait(LIMIT_S) == code
            finally:
                process.kill()


@pytest.mark.long
def test_a_server_whose_log_nobody_reads_ends_at_the_signal(tmp_path: Path) -> None:
    """The log is written by the event loop, which hangs once the pipe is full."""
    flags = ("--engine", "fake", "--drain-grace", "0.5")
    with running(bundle_at(tmp_path / "fake"), *flags) as process:
        with channel_to(process.port) as channel, pytest.raises(grpc.RpcError):
            for _ in range(2000):  # each logs a line of over 100 bytes; a pipe holds 64 KiB
                LabelServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=2)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(LIMIT_S) == 0


@pytest.mark.long
def test_silent_connections_to_the_probes_leave_descriptors_for_calls(tmp_path: Path) -> None:
    with running(bundle_at(tmp_path / "fake"), "--engine", "fake") as process, ExitStack() as stack:
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (250, 250))
        for _ in range(400):
            address = (process.host, process.metrics_port)
            stack.enter_context(socket.create_connection(address, HANG_S))
        with channel_to(process.port) as channel:
            stub = LabelServiceStub(channel)
            assert stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S).models
        assert process.get("/healthz") == (200, "alive\n")
