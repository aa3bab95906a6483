"""Memory that messages came through is given back, whoever dies or leaves."""

import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from labelmint import Client, Patience
from service.shared_memory import NAME
from tests.hangs import HANG_S
from tests.service.harness import served
from tests.service.identities import config
from tests.service.test_faults import free_port
from tests.service.test_process import bundle_at, running

READER = """
import sys
from labelmint import Client
with Client(sys.argv[1], shared_memory=True) as client:
    for batch in client.stream(8):
        print(batch.next_index, flush=True)
"""


def shared_memory_of(pid: int) -> list[str]:
    """The process's mappings and descriptors of shared messages."""
    folder = Path(f"/proc/{pid}")
    found = [line for line in (folder / "maps").read_text().splitlines() if NAME in line]
    for descriptor in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += [link for link in [os.readlink(descriptor)] if link.startswith(NAME)]
    return found


@pytest.mark.long
def test_a_killed_client_leaves_nothing_in_the_server(tmp_path: Path) -> None:
    flags = ("--engine", "fake", "--shared-memory")
    with running(bundle_at(tmp_path / "fake"), *flags) as process:
        for _ in range(3):
            words = [sys.executable, "-c", READER, f"127.0.0.1:{process.port}"]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None and client.stdout.readline()
                assert shared_memory_of(process.popen.pid)
                client.send_signal(signal.SIGKILL)
            until = time.monotonic() + HANG_S
            while shared_memory_of(process.popen.pid) and time.monotonic() < until:
                time.sleep(0.05)
            assert not shared_memory_of(process.popen.pid)


def test_a_killed_server_loses_nothing_and_leaves_nothing_in_the_client(tmp_path: Path) -> None:
    fake, port, before = bundle_at(tmp_path / "fake"), free_port(), shared_here()
    flags = ("--engine", "fake", "--shared-memory", "--listen", f"127.0.0.1:{port}")
    with Client(f"127.0.0.1:{port}", shared_memory=True, patience=Patience(60)) as client:
        batches = client.stream(8)
        indices: list[int] = []
        for _ in range(2):
            with running(fake, *flags) as process:
                indices += [i for _ in range(20) for i in next(batches).indices.tolist()]
                process.popen.send_signal(signal.SIGKILL)
        with running(fake, *flags):
            for _ in range(60):  # what is still at hand, and what comes anew
                indices += next(batches).indices.tolist()
        assert indices == list(range(len(indices)))
    del batches
    assert falls_to(before)


def test_streams_that_are_left_in_the_middle_leave_nothing() -> None:
    before = shared_here()
    with served(config=config(shared_memory=True)) as server:
        target = f"127.0.0.1:{server.server.port}"
        for _ in range(3):
            with Client(target, shared_memory=True, prefetch_bytes=0) as client:
                batches = client.stream(2)
                next(batches)
                del batches
        assert falls_to(before)


def shared_here() -> int:
    """Descriptors and mappings of such memory in this process."""
    links = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    maps = Path("/proc/self/maps").read_text()
    return sum(link.startswith(NAME) for link in links) + maps.count(NAME)


def falls_to(before: int) -> bool:
    """Whether no more of it is left; grpc's threads let go of it last."""
    until = time.monotonic() + HANG_S
    while shared_here() > before and time.monotonic() < until:
        gc.collect()
        time.sleep(0.1)
    return shared_here() <= before
