"""Replicas are added, drained and killed under load: no sample is lost, new ones get streams."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from engines.fake import fake_bundle
from labelmint import Client
from tests.deploy.name_server import NameServer, named
from tests.hangs import HANG_S, eventually
from tests.service.harness import FakeModel, served
from tests.service.test_faults import free_port
from tests.service.test_lifetime import samples_of
from tests.service.test_process import Process, bundle_at, running

FIRST, SECOND, ADDED = HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
READERS, STREAMS = 3, 2  # and of each
PAUSE_S = 0.05  # after a batch, so that readers do not need all of this machine
MAX_AGE_S = 2.0
RESOLUTION = 64  # samples so large that few fit between a server and its reader


class Reader:
    """Reads a stream until it is stopped, and keeps what it received."""

    def __init__(self, client: Client, seed: int) -> None:
        self.seed, self.next_index = seed, 0
        self.got: list[tuple[int, bytes]] = []
        self.error: Exception | None = None
        self.client, self._stop = client, threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        batches = self.client.stream(8, seed=self.seed, max_message_samples=8)
        try:
            while not self._stop.wait(PAUSE_S):
                batch = next(batches)
                self.got += samples_of([batch])
                self.next_index = batch.next_index
        except Exception as error:  # for the test to raise
            self.error = error


class Replicas:
    """Server processes on one port of several addresses."""

    def __init__(self, bundle: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self._bundle, self._stack = bundle, stack

    def start(self, host: str) -> Process:
        flags = ("--engine", "fake", "--listen", f"{host}:{self.port}")
        age = ("--max-stream-age", f"{MAX_AGE_S}")
        return self._stack.enter_context(running(self._bundle, *flags, *age))


def sent(*processes: Process) -> float:
    """Samples sent so far."""
    pages = [process.get("/metrics")[1] for process in processes]
    found = [re.search(r"(?m)^labelmint_kept_samples_total\S* (\S+)$", page) for page in pages]
    return sum(float(each[1]) for each in found if each)


@contextmanager
def reading(target: str) -> Iterator[list[Reader]]:
    """Runs readers; at the end each has every sample once, as from a single server."""
    with ExitStack() as stack:
        readers = []
        for seed in range(READERS):
            client = stack.enter_context(Client(target, streams=STREAMS, prefetch_bytes=0))
            readers.append(Reader(client, seed))
            stack.callback(readers[-1].stop)
        wait_for_progress(readers)
        yield readers
        wait_for_progress(readers)
    model = FakeModel(bundle=fake_bundle(RESOLUTION))
    with served([model]) as alone, Client(f"127.0.0.1:{alone.server.port}") as client:
        for reader in readers:
            expected = samples_of(client.stream(64, seed=reader.seed, end_index=reader.next_index))
            assert reader.got == expected and reader.error is None


def wait_for_progress(readers: list[Reader]) -> None:
    """Waits until each reader has received more than can have been in transit."""
    wanted = [len(reader.got) + 400 for reader in readers]
    wait_until(lambda: all(len(r.got) >= n for r, n in zip(readers, wanted, strict=True)), readers)


def wait_until(condition: Callable[[], bool], readers: list[Reader]) -> None:
    def over() -> bool:
        return condition() or any(reader.error for reader in readers)

    assert eventually(over)
    assert [reader.error for reader in readers] == [None] * len(readers)


@pytest.mark.long
@pytest.mark.parametrize(
    "by_name", [pytest.param(True, marks=pytest.mark.slow), False], ids=["a name", "a list"]
)
def test_replicas_come_and_go_under_load_and_nothing_is_lost(by_name: bool, tmp_path: Path) -> None:
    with ExitStack() as stack:
        replicas = Replicas(bundle_at(tmp_path / "b", resolution=RESOLUTION), stack)
        first, second = replicas.start(FIRST), replicas.start(SECOND)
        names: NameServer = stack.enter_context(named(FIRST, SECOND))
        listed = ",".join(f"{host}:{replicas.port}" for host in HOSTS)
        name = f"dns://127.0.0.1:{names.port}/labels.test:{replicas.port}"
        with reading(name if by_name else listed) as readers:
            wait_until(lambda: sent(first) > 0 < sent(second), readers)
            added = replicas.start(ADDED)
            names.addresses = HOSTS
            before = sent(first, second)
            # A third of all in the long run, which is half of what the other two send.
            wait_until(lambda: sent(added) > (sent(first, second) - before) / 4, readers)
            if by_name:  # and with the list nothing failed but what was not there yet
                assert not any(reader.client.reconnects for reader in readers)
            first.popen.kill()
            wait_for_progress(readers)
            names.addresses = (SECOND, ADDED)
            second.popen.send_signal(signal.SIGTERM)
            assert second.popen.wait(HANG_S) == 0
