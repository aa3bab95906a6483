"""Ends: leaving a stream leaves nothing behind, and a closed client says that it is closed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from labelmint import Client, Patience
from labelmint.batch import Batch
from labelmint.errors import ClientClosed
from tests.client.scripted_service import CLOSED_PORT, ScriptedService, serving
from tests.hangs import eventually

CALLS: dict[str, Callable[[Client], object]] = {
    "models": lambda client: client.models(),
    "model": lambda client: client.model(),
    "generate": lambda client: client.generate(count=1),
    "stream": lambda client: next(client.stream(count=1)),
    "grouped": lambda client: next(client.stream(2, views_per_object=2, group_views=True)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shared_memory", [False, True])
def test_every_call_on_a_closed_client_says_that_it_is_closed(
    target: str, call: str, shared_memory: bool
) -> None:
    with Client(target, shared_memory=shared_memory) as client:
        pass
    with pytest.raises(ClientClosed, match=r"^the client is closed; make another Client$"):
        CALLS[call](client)


@pytest.mark.parametrize("count", [0, 9])
def test_a_stream_that_outlives_its_client_says_so_and_where_to_go_on(
    target: str, count: int
) -> None:
    """Also one whose samples had all arrived: how fast they came is nothing to depend on."""
    with Client(target) as client:
        batches = client.stream(4, count=count)
        got = [next(batches)]
    with pytest.raises(ClientClosed) as caught:
        got += batches
    assert caught.value.next_index == got[-1].next_index == sum(map(len, got))


class Stuck(ScriptedService):
    """Answers nothing until the caller is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    def _admit(self, context: grpc.ServicerContext) -> None:
        gone = threading.Event()
        if context.add_callback(gone.set):
            self.asked.release()
            gone.wait()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_waits_for_its_answer_ends_when_another_thread_closes(call: str) -> None:
    with serving(Stuck()) as (target, service), ThreadPoolExecutor(1) as thread:
        assert isinstance(service, Stuck)
        client = Client(target)
        answer = thread.submit(CALLS[call], client)
        service.asked.acquire()
        client.close()
        with pytest.raises(ClientClosed):
            answer.result()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_waits_for_a_server_ends_when_another_thread_closes(call: str) -> None:
    client = Client(CLOSED_PORT, patience=Patience(connect_s=3600), timeout_s=3600)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(CALLS[call], client)
        while not client.reconnects:
            assert not answer.done()
        client.close()
        with pytest.raises(ClientClosed):
            answer.result()


@pytest.mark.parametrize("shared_memory", [False, True])
def test_streams_that_run_when_another_thread_closes_never_look_finished(
    target: str, shared_memory: bool
) -> None:
    chance = random.Random(0)
    for _ in range(10):
        client = Client(target, streams=2, shared_memory=shared_memory)
        seen = threading.Semaphore(0)
        with ThreadPoolExecutor(3) as threads:
            reading = [threads.submit(read, client.stream(3), seen) for _ in range(3)]
            for _ in range(chance.randrange(30)):
                seen.acquire()
            client.close()
            for each in reading:
                with pytest.raises(ClientClosed):
                    each.result()


def read(batches: Iterator[Batch], seen: threading.Semaphore) -> None:
    for _ in batches:
        seen.release()


@pytest.mark.parametrize("leave", ["break", "close", "client"])
def test_leaving_early_ends_the_calls_and_leaves_no_thread(
    target: str, service: ScriptedService, leave: str
) -> None:
    before = set(threading.enumerate())
    client = Client(target, streams=2)
    batches = client.stream(4)
    next(batches)
    if leave == "break":
        for _ in batches:
            break
        del batches
    elif leave == "close":
        batches.close()  # type: ignore[attr-defined]
    client.close()
    client.close()
    assert eventually(lambda: service.running == 0)
    assert eventually(lambda: not [t for t in threading.enumerate() if is_clients(t, before)])


def is_clients(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    # The server's pool is in this process, too, and grows with the calls.
    return thread not in before and not thread.name.startswith("ThreadPoolExecutor")
