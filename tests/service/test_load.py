"""Many streams at once, ended in every way: nothing grows, nothing is left, nobody starves."""

import asyncio
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from engines.fake import FakeOptions
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.server import Server
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, RunningServer, channel_to, served
from tests.service.test_process import Process, bundle_at, running

STREAMS = 64
SECONDS = [pytest.param(4, marks=pytest.mark.long), pytest.param(120, marks=pytest.mark.slow)]
ENDS = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


def misbehave(port: int, seed: int, until: float) -> int:
    """Streams that end in random ways, one after another; returns how many."""
    dice, opened = random.Random(seed), 0
    with channel_to(port) as channel:
        stub = LabelServiceStub(channel)
        while time.monotonic() < until:
            opened += 1
            count = dice.choice((0, 1, 50, 500))
            query = pb.SampleQuery(count=count, sampling=pb.SamplingOptions(seed=seed))
            call = stub.StreamSamples(
                pb.StreamSamplesRequest(query=query),
                timeout=dice.choice((0.01, 0.1, 1.0)),  # a deadline, late or early
            )
            try:
                for _ in range(dice.randint(0, 20)):
                    next(call)
                    if dice.random() < 0.1:
                        time.sleep(dice.random() / 4)  # a stall
            except StopIteration:
                continue
            except grpc.RpcError as error:
                assert error.code() in ENDS, error
            call.cancel()
    return opened


def resident_bytes(process: Process) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10


def gauge(process: Process, name: str) -> float:
    return float(re.findall(rf'^{name}{{model="m"}} (\S+)$', process.get("/metrics")[1], re.M)[0])


@pytest.mark.parametrize("seconds", SECONDS)
def test_64_misbehaving_streams_leave_memory_flat_and_nothing_open(
    tmp_path: Path, seconds: int
) -> None:
    with running(
        bundle_at(tmp_path / "fake"), "--engine", "fake", "--log-level", "error"
    ) as process:
        marks = []
        with ThreadPoolExecutor(STREAMS) as pool:
            for part in range(4):
                until = time.monotonic() + seconds / 4
                opened = list(
                    pool.map(
                        lambda seed, until=until: misbehave(process.port, seed, until),
                        range(STREAMS * part, STREAMS * (part + 1)),
                    )
                )
                assert sum(opened) > 0  # fewer than one a thread where the machine is busy
                marks.append(resident_bytes(process))
        assert max(marks[2:]) < marks[1] + (16 << 20), marks  # flat once it was busy for a while
        deadline = time.monotonic() + HANG_S
        while gauge(process, "labelmint_open_streams") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert gauge(process, "labelmint_open_streams") == 0
        with channel_to(process.port) as channel:
            call = LabelServiceStub(channel).StreamSamples(
                pb.StreamSamplesRequest(query=pb.SampleQuery(count=100)), timeout=HANG_S
            )
            assert sum(len(message.batch.indices) for message in call) == 100


def open_tasks(server: RunningServer) -> int:
    async def count(running: Server) -> int:
        return len(asyncio.all_tasks())

    return int(server.call(count))


@pytest.mark.parametrize(
    ("streams", "seconds"),
    [
        pytest.param(12, 4, marks=pytest.mark.long),
        pytest.param(STREAMS, 120, marks=pytest.mark.slow),
    ],
)
def test_equal_streams_get_equal_shares_and_leave_no_task(streams: int, seconds: int) -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.005))
    with served([slow]) as server, ThreadPoolExecutor(streams) as pool:
        before = open_tasks(server)
        all_flow = threading.Barrier(streams)

        def read(seed: int) -> int:
            """Samples received while all streams flow."""
            call = server.stream(timeout=seconds + HANG_S, sampling=pb.SamplingOptions(seed=seed))
            next(call)
            all_flow.wait(HANG_S)
            received, until = 0, time.monotonic() + seconds
            for message in call:
                received += len(message.batch.indices)
                if time.monotonic() > until:
                    break
            call.cancel()
            return received

        received = list(pool.map(read, range(streams)))
        assert min(received) >= 0.8 * max(received), sorted(received)
        deadline = time.monotonic() + HANG_S
        while open_tasks(server) > before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert open_tasks(server) <= before
