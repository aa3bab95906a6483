"""Whatever dies in the middle of a stream, its reader ends up with every index exactly once."""

import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest

from labelmint import Client, Patience
from labelmint.torch import LabelStream
from tests.service.fault_proxy import Fault, proxying
from tests.service.test_process import Process, bundle_at, running

ROUNDS = [
    3,
    pytest.param(100, marks=pytest.mark.slow),
]
FAULTS = [fault for fault in get_args(Fault) if fault != "none"]
PATIENCE = Patience(connect_s=60.0)
FIRST_HANDED_OUT = 32_768  # Linux's default for ip_local_port_range


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_at(tmp_path_factory.mktemp("faults") / "fake")


class Reader:
    """A user's loop over one stream, which goes on by itself."""

    def __init__(self, port: int, **options: Any) -> None:
        self.target, self.options = f"127.0.0.1:{port}", options
        self.indices: list[int] = []
        self.bytes: dict[int, bytes] = {}
        self.reconnects = 0

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Reads batch by batch until enough was read."""
        with Client(self.target, patience=PATIENCE) as client:
            for batch in client.stream(**self.options):
                assert batch.images is not None
                found = [int(i) for i in batch.indices]
                self.indices += found
                self.bytes |= zip(found, map(bytes, batch.images), strict=True)
                self.reconnects = client.reconnects
                if enough():
                    return


def exactly_once(reader: Reader) -> bool:
    return reader.indices == list(range(len(reader.indices)))


def free_port() -> int:
    """A port that also stays free while a server is down: none of those the system hands out."""
    while True:
        port = random.SystemRandom().randrange(10_000, FIRST_HANDED_OUT)
        with suppress(OSError), socket.create_server(("", port)):
            return port


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kill_9_and_a_restart_lose_nothing_and_repeat_nothing(fake: Path, rounds: int) -> None:
    dice, port = random.Random(rounds), free_port()
    reader, killed = Reader(port, batch_size=7), 0
    flags = ("--engine", "fake", "--listen", f"127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader.read_until, lambda: killed == rounds)
        for _ in range(rounds):
            before = len(reader.indices)
            with running(fake, *flags) as process:
                while len(reader.indices) == before and not reading.done():
                    time.sleep(0.01)
                time.sleep(dice.random() / 2)  # it reads on meanwhile
                process.popen.send_signal(signal.SIGKILL)
            killed += 1
        with running(fake, *flags):
            reading.result()
    assert reader.reconnects >= rounds and exactly_once(reader)
    assert len(reader.indices) > 100 * rounds


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.long
def test_training_through_kills_sees_every_index_of_an_epoch_once(fake: Path, kills: int) -> None:
    dice, port, killed, seen = random.Random(kills), free_port(), 0, list[int]()
    per_kill = 300
    end = per_kill * (kills + 1)

    def train() -> None:
        stream = LabelStream(
            f"127.0.0.1:{port}", batch_size=16, end_index=end, outputs=["mask"], patience=PATIENCE
        )
        for batch in stream:
            seen.extend(batch.indices.tolist())
            while len(seen) >= per_kill * (killed + 1) and killed < kills:
                time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        for _ in range(kills):
            until = per_kill * killed + dice.randrange(per_kill)
            with running(fake, "--engine", "fake", "--listen", f"127.0.0.1:{port}") as process:
                while len(seen) <= until and not training.done():
                    time.sleep(0.001)
                process.popen.send_signal(signal.SIGKILL)
            killed += 1
        with running(fake, "--engine", "fake", "--listen", f"127.0.0.1:{port}"):
            training.result()
    assert seen == list(range(end))


@pytest.fixture(scope="module")
def process(fake: Path) -> Iterator[Process]:
    with running(fake, "--engine", "fake") as process:
        yield process


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_broken_link_loses_nothing_and_repeats_nothing(
    process: Process, fault: Fault, rounds: int
) -> None:
    with proxying(process.port, seed=rounds) as proxy:
        proxy.fault = fault
        reader = Reader(proxy.port, batch_size=5, seed=3)
        reader.read_until(lambda: proxy.met >= rounds and len(reader.indices) > 20 * rounds)
    assert exactly_once(reader)
    clean = Reader(process.port, batch_size=5, seed=3)
    clean.read_until(lambda: len(clean.indices) >= len(reader.indices))
    assert all(reader.bytes[i] == clean.bytes[i] for i in reader.indices)
