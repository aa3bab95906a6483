"""Messages through a client's memory: the same samples, whoever lies or stalls."""

import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from labelmint import Client
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.shared_memory import SharedMemory
from service.errors import NEXT_INDEX
from service.server import Server
from service.shared_memory import Slots
from tests.hangs import HANG_S
from tests.service.harness import RunningServer, refusal, served
from tests.service.identities import config

C = grpc.StatusCode
QUERY = pb.SampleQuery(max_message_bytes=1 << 16)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with served(config=config(shared_memory=True)) as server:
        yield server


def target(server: RunningServer) -> str:
    return f"127.0.0.1:{server.server.port}"


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 5, "count": 203, "seed": 3},
        {"batch_size": 7, "end_index": 300, "max_uncertainty": 0.4, "max_message_samples": 3},
        {"batch_size": 4, "count": 90, "codecs": ["jpeg", "zstd"], "outputs": ["image", "mask"]},
    ],
)
@pytest.mark.parametrize("streams", [1, 2])
def test_samples_are_those_of_the_socket_and_safe_to_keep(
    server: RunningServer, options: dict[str, Any], streams: int
) -> None:
    with Client(target(server)) as socket:
        expected = list(socket.stream(**options))
    with Client(target(server), streams=streams, shared_memory=True) as shared:
        got = list(shared.stream(**options))
        assert shared.reconnects == 0
    assert [b.indices.tolist() for b in got] == [b.indices.tolist() for b in expected]
    for left, right in zip(got, expected, strict=True):
        for name in ("images", "masks", "keypoints", "depth", "uncertainty"):
            a, b = getattr(left, name), getattr(right, name)
            assert (a is None) == (b is None)
            assert a is None or a.tobytes() == b.tobytes()


def test_the_messages_do_come_through_memory(server: RunningServer) -> None:
    memory = SharedMemory(1 << 16)
    call = server.stub.StreamSharedSamples(iter([first(memory)]), timeout=HANG_S)
    sizes = [next(call).size for _ in range(4)]
    messages = [memory.message(number, size) for number, size in enumerate(sizes)]
    indices = [i for message in messages for i in message.batch.indices]
    assert indices == list(range(len(indices))) and indices
    call.cancel()
    memory.close()


def test_a_server_that_does_not_offer_it_sends_as_ever(server: RunningServer) -> None:
    with served() as plain, Client(target(plain), shared_memory=True) as client:
        batches = list(client.stream(5, count=23))
        assert [i for b in batches for i in b.indices.tolist()] == list(range(23))
        assert client.reconnects == 0


def first(memory: SharedMemory, **changes: Any) -> pb.StreamSharedSamplesRequest:
    described = memory.description()
    for name, value in changes.items():
        setattr(described, name, value)
    return pb.StreamSharedSamplesRequest(query=QUERY, memory=described)


def refused(server: RunningServer, *requests: pb.StreamSharedSamplesRequest) -> Any:
    found = refusal(lambda: list(server.stub.StreamSharedSamples(iter(requests), timeout=HANG_S)))
    assert server.generate(count=1).batch.indices == [0]
    return found


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test is."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(1 << 16)
    yield memory
    memory.close()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"slots": 0}, C.INVALID_ARGUMENT, "0 slots"),
        ({"slot_bytes": 100}, C.INVALID_ARGUMENT, "slots of 100 bytes"),
        ({"slot_bytes": 1 << 50}, C.INVALID_ARGUMENT, "the limit is"),
        ({"slots": 2**32 - 1}, C.INVALID_ARGUMENT, "the limit is"),
        ({"nonce": b"short"}, C.INVALID_ARGUMENT, "nonce has 5 bytes"),
        ({"slots": 5}, C.FAILED_PRECONDITION, "its description says"),
        ({"nonce": bytes(16)}, C.FAILED_PRECONDITION, "does not hold the nonce"),
        ({"fd": 0}, C.FAILED_PRECONDITION, "cannot be reached"),
        ({"fd": 2**32 - 1}, C.FAILED_PRECONDITION, "cannot be reached"),
        ({"pid": 1}, C.FAILED_PRECONDITION, "cannot be reached"),
        ({"pid": 2**32 - 1}, C.FAILED_PRECONDITION, "cannot be reached"),
    ],
)
def test_memory_that_is_not_the_callers_is_refused(
    server: RunningServer, memory: SharedMemory, changes: Any, code: C, words: str
) -> None:
    found = refused(server, first(memory, **changes))
    assert found.code is code and words in found.message
    assert "/proc" not in found.message


def test_files_and_unsealed_memory_are_refused(server: RunningServer) -> None:
    with tempfile.TemporaryFile() as file:
        found = refused(server, described(file.fileno()))
        assert found.code is C.FAILED_PRECONDITION and "cannot be reached" in found.message
    unsealed = os.memfd_create("labelmint", os.MFD_ALLOW_SEALING)
    found = refused(server, described(unsealed))
    assert found.code is C.FAILED_PRECONDITION and "not sealed" in found.message
    os.close(unsealed)
    read_only = os.memfd_create("labelmint", os.MFD_ALLOW_SEALING)
    request = described(read_only)
    fcntl.fcntl(read_only, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
    found = refused(server, request)
    assert found.code is C.FAILED_PRECONDITION and "cannot be mapped" in found.message
    os.close(read_only)


def described(fd: int) -> pb.StreamSharedSamplesRequest:
    """A description of something else; it has the right size and nonce."""
    nonce, size = b"n" * 16, (1 << 16) * 4
    os.ftruncate(fd, size + 16)
    with mmap.mmap(fd, size + 16) as whole:
        whole[size:] = nonce
    memory = pb.SharedMemory(pid=os.getpid(), fd=fd, slot_bytes=1 << 16, slots=4, nonce=nonce)
    return pb.StreamSharedSamplesRequest(query=QUERY, memory=memory)


@pytest.mark.parametrize("released", [[5000], [2**64 - 1]])
def test_releasing_what_was_never_sent_ends_the_stream(
    server: RunningServer, memory: SharedMemory, released: list[int]
) -> None:
    later = (pb.StreamSharedSamplesRequest(released=count) for count in released)
    found = refused(server, first(memory), *later)
    assert found.code is C.INVALID_ARGUMENT
    assert "released is" in found.message


def test_a_client_that_releases_nothing_more_is_told(
    server: RunningServer, memory: SharedMemory
) -> None:
    assert "no slot will be released" in refused(server, first(memory)).message
    assert refused(server).code is C.INVALID_ARGUMENT


def test_a_stalled_reader_gets_its_slots_and_no_more(
    server: RunningServer, memory: SharedMemory, over: threading.Event
) -> None:
    call = server.stub.StreamSharedSamples(silent_after(first(memory), over), timeout=HANG_S)
    slots = memory.description().slots
    sizes = [next(call).size for _ in range(slots)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, call)
        assert len(server.generate(count=8).batch.indices) == 8  # others go on
        time.sleep(0.2)
        assert not waiting.done() and all(sizes)
        call.cancel()
        assert isinstance(waiting.exception(), grpc.RpcError)


def silent_after(
    request: pb.StreamSharedSamplesRequest, over: threading.Event
) -> Iterator[pb.StreamSharedSamplesRequest]:
    """The request, and then nothing until it is over: a reader that neither releases nor ends."""
    yield request
    over.wait()


async def drain(running: Server) -> None:
    await running.drain()


async def unload(running: Server) -> None:
    """Of a model that is replaced, too, streams end so."""
    await running.repository.unload("fake")


@pytest.mark.parametrize("end", [drain, unload])
def test_a_drain_ends_a_stalled_reader_resumably(
    memory: SharedMemory, over: threading.Event, end: Callable[[Server], Coroutine[Any, Any, None]]
) -> None:
    with served(config=config(shared_memory=True, model_drain_s=0.1)) as server:
        call = server.stub.StreamSharedSamples(silent_after(first(memory), over), timeout=HANG_S)
        for number in range(memory.description().slots):
            last = memory.message(number, next(call).size)
        server.call(end)
        ended = refusal(lambda: next(call))
        assert ended.code is C.UNAVAILABLE
        assert int(ended.trailers[NEXT_INDEX]) == last.next_index


def test_slots_are_written_in_turn_and_never_before_they_are_free() -> None:
    with mmap.mmap(-1, 32) as ring:
        slots = Slots(ring, 8, 4)
        for number in range(4):
            assert slots.write([bytes([number]), memoryview(b"ab")]) == 3
        assert [ring[i * 8 : i * 8 + 3] for i in range(4)] == [bytes([n]) + b"ab" for n in range(4)]


def test_memory_of_a_client_cannot_shrink(memory: SharedMemory) -> None:
    described = memory.description()
    seals = fcntl.fcntl(described.fd, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_GROW
    with pytest.raises(PermissionError):
        os.ftruncate(described.fd, 0)
