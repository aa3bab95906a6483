"""Forks and copies: a client works in the process that made it, and elsewhere says what to do."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from labelmint import Client
from labelmint.torch import LabelStream
from tests.client.scripted_service import CLOSED_PORT
from tests.hangs import HANG_S

REFUSED = """
import os, sys
from labelmint import Client
from labelmint.errors import ClientClosed
if sys.argv[1] == "used":
    Client("localhost:1").close()
if os.fork() == 0:
    try:
        Client("localhost:1")
    except ClientClosed as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("parent", ["used", "fresh"])
def test_a_fork_of_a_process_that_used_grpc_can_have_no_client(parent: str) -> None:
    said = run("-c", REFUSED, parent)
    assert ('multiprocessing_context="forkserver"' in said) == (parent == "used")


REFUSED_LOADERS = [(before, "fork") for before in ("closed", "open", "streaming", "iterated")]
LOADERS = [("nothing", "fork"), *REFUSED_LOADERS, ("streaming", "forkserver")]
SPAWNED = [*LOADERS, ("iterated", "spawn")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("loaders", "persistent"),
    [
        (LOADERS, False),
        pytest.param(SPAWNED, False, marks=pytest.mark.slow),
        pytest.param(SPAWNED, True, marks=pytest.mark.slow),
    ],
)
def test_no_data_loader_waits_for_workers_that_are_forks_of_a_process_with_grpc(
    target: str, loaders: list[tuple[str, str]], persistent: bool
) -> None:
    """Two epochs of two workers deliver all, or the first ends with the argument to pass."""
    cases = json.dumps([(*loader, persistent) for loader in loaders])
    ended = json.loads(run("-m", "tests.client.torch_forks", target, cases))
    for loader, (code, said, complaints) in zip(loaders, ended, strict=True):
        assert code == 0, (loader, complaints)
        lines = said.strip().splitlines()
        if loader not in REFUSED_LOADERS:
            assert lines == ["[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]"] * 2, loader
            continue
        assert lines[0] == "Caught ClientClosed in DataLoader worker process 0.", loader
        assert 'give the DataLoader multiprocessing_context="forkserver"' in lines[-1], loader


MADE = """
import os, sys
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # grpc's own handlers may hang within os.fork
from labelmint import Client
from labelmint.errors import ClientClosed
client = Client(sys.argv[1])
running = client.stream(4)
child = os.fork()
if child == 0:
    for ask in (client.models, lambda: next(running), lambda: next(client.stream(4))):
        try:
            ask()
        except ClientClosed as error:
            whose = f"the client belongs to process {os.getppid()}"
            fork = f"and this is its fork {os.getpid()}; make a Client in each process, and "
            assert str(error) == f"{whose}, {fork}start those with 'forkserver' or 'spawn'"
        else:
            raise AssertionError
    client.close()
    print("child is done", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
next(running), client.models()
print("parent is done")
"""


def test_a_client_in_a_fork_says_so_rather_than_wait_for_ever(target: str) -> None:
    """And the parent's goes on. It forks before its first call: while grpc's threads are at work, a
    fork may hang in whatever lock they held, which no client can help."""
    assert run("-c", MADE, target).splitlines() == ["child is done", "parent is done"]


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_that_would_be_copied_says_what_to_do(copied: Callable[[Any], Any]) -> None:
    with Client(CLOSED_PORT) as client, pytest.raises(TypeError, match="make a Client in each"):
        copied(client)


def test_a_label_stream_is_copied_in_the_midst_of_an_iteration(target: str) -> None:
    stream = LabelStream(target, batch_size=4, end_index=10)
    batches = iter(stream)
    next(batches)
    for each in (pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)):
        assert [b.indices.tolist() for b in each] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert next(batches).indices.tolist() == [4, 5, 6, 7]
