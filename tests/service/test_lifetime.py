"""A stream stays for as long as --max-stream-age says, and goes on elsewhere with nothing lost."""

import hashlib
import logging
import socket
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engines.fake import FakeOptions
from labelmint import Batch, Client
from labelmint.errors import ERROR_DOMAIN, STREAM_AGED
from labelmint.v1 import label_service_pb2 as pb
from service.delivery import Message
from service.discards import Reasons
from service.errors import NEXT_INDEX, StreamExpired
from service.lifetime import Lifetime
from tests.attacks.http2 import GOAWAY, PREFACE, SETTINGS, frame
from tests.service.expected_samples import Wanted
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.identities import config
from tests.service.inference_calls import exchange, indices, infer_request
from tests.service.test_delivery import stream_of
from tests.service.test_engine_flags import parsed
from tests.service.test_metrics import scraped, value

C = grpc.StatusCode
SLOW = FakeModel(options=FakeOptions(seconds_per_run=0.02))  # a batch of 8


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with served([SLOW], config(max_stream_age_s=0.1, shared_memory=True, metrics_port=0)) as server:
        yield server


def ended(server: RunningServer, method: str) -> float:
    """How many calls of that method ended with UNAVAILABLE."""
    return value(
        scraped(server), "labelmint_requests_total", method=method, code=C.UNAVAILABLE.name
    )


def test_a_stream_ends_at_a_message_and_says_where_it_goes_on(server: RunningServer) -> None:
    stream, seen = server.stream(), []
    end = refusal(lambda: seen.extend(stream))
    assert end.code is C.UNAVAILABLE and "0.1 s" in end.message and "next_index" in end.message
    assert int(end.trailers[NEXT_INDEX]) == seen[-1].next_index >= 8
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(end.error)
    assert status is not None and status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (STREAM_AGED, ERROR_DOMAIN)


def samples_of(batches: Iterable[Batch]) -> list[tuple[int, bytes]]:
    """Every sample's index and the hash of its bytes, in the order in which they came."""
    found = []
    for batch in batches:
        arrays = (batch.images, batch.masks, batch.keypoints, batch.depth, batch.uncertainty)
        columns = [array for array in arrays if array is not None]
        assert len(columns) == len(arrays)
        for row, index in enumerate(batch.indices.tolist()):
            data = b"".join(column[row].tobytes() for column in columns)
            found.append((index, hashlib.sha256(data).digest()))
    return found


@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("streams", [1, 2])
def test_the_client_goes_on_at_once_and_gets_every_sample_once(
    server: RunningServer, shared_memory: bool, streams: int, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"end_index": 400, "max_uncertainty": 0.7}
    with served() as ageless, Client(f"127.0.0.1:{ageless.server.port}") as client:
        expected = samples_of(client.stream(16, **options))
    target = f"127.0.0.1:{server.server.port}"
    with (
        caplog.at_level(logging.INFO, "labelmint"),
        Client(target, streams=streams, shared_memory=shared_memory) as client,
    ):
        assert samples_of(client.stream(16, **options)) == expected
        assert client.reconnects == 0
    method = "StreamSharedSamples" if shared_memory else "StreamSamples"
    said = [record for record in caplog.records if record.name == "labelmint"]
    aged = [record for record in said if "its age" in record.message]
    assert len(aged) == ended(server, method) >= 2  # others met the end of their connection
    assert {record.levelno for record in said} == {logging.INFO}


def close_by_age(listener: socket.socket, forward_to: int) -> None:
    """Sends GOAWAY when the first call arrives: no stream was seen. Then forwards a connection."""
    unseen = struct.pack(">II", 0, 0) + b"max_age"  # last stream, NO_ERROR
    with listener.accept()[0] as first:
        first.sendall(frame(SETTINGS, 0, 0))
        received = b""
        while b"/labelmint.v1.LabelService/" not in received:
            data = first.recv(1 << 16)
            assert data, "the client has hung up"
            received += data
        assert received.startswith(PREFACE)
        first.sendall(frame(GOAWAY, 0, 0, unseen))
        with (
            listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", forward_to)) as server,
            ThreadPoolExecutor(1) as pool,
        ):
            pool.submit(pump, client, server)
            pump(server, client)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_a_call_that_meets_the_end_of_its_connection_begins_again_at_once() -> None:
    """The server closes connections by age: a call may begin as one does."""
    with (
        served() as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        closing = pool.submit(close_by_age, listener, server.server.port)
        with Client(f"127.0.0.1:{listener.getsockname()[1]}") as client:
            assert len(samples_of(client.stream(16, end_index=16))) == 16
            assert client.reconnects == 0
        closing.result()


def test_a_stream_that_gets_nowhere_stays_where_it_is() -> None:
    slower = FakeModel(options=FakeOptions(seconds_per_run=1.2))  # than heartbeats
    with served([slower], config(max_stream_age_s=1e-6)) as server:
        start = 0
        for _ in range(2):
            seen: list[pb.StreamSamplesResponse] = []
            with pytest.raises(grpc.RpcError, match="max-stream-age"):
                seen.extend(server.stream(start_index=start))
            assert seen[0].next_index == start == seen[-1].batch.indices[0]
            start = seen[-1].next_index


@pytest.mark.parametrize("query", [{"count": 8}, {"end_index": 8}, {"indices": [3, 5]}])
def test_a_stream_that_is_over_ends_well_however_old(query: dict[str, Any]) -> None:
    with served([SLOW], config(max_stream_age_s=1e-6)) as server:
        assert sum(len(message.batch.indices) for message in server.stream(**query)) == len(
            query.get("indices", range(8))
        )


def test_calls_with_one_answer_and_inference_streams_finish(server: RunningServer) -> None:
    assert len(server.generate(count=160).batch.indices) == 160  # 0.4 s
    requests = (infer_request(indices(number)) for number in range(30))
    answers = list(exchange(server.channel, requests))
    assert len(answers) == 30 and not any(answer.error_message for answer in answers)


def over(lifetime: Lifetime, now: float) -> bool:
    try:
        lifetime.check(stream_of(Wanted(end=100)), Message((), 8, 8, Reasons(8, 0, 0, 0, 0)), now)
    except StreamExpired:
        return True
    return False


def test_lifetimes_are_up_to_a_tenth_shorter_or_longer() -> None:
    lives = [Lifetime(100.0, 0, now=1000.0) for _ in range(400)]
    early, middle, late = (sum(over(life, at) for life in lives) for at in (1089, 1100, 1111))
    assert (early, late) == (0, 400) and 100 < middle < 300
    assert not over(Lifetime(0.0, 0, now=0.0), 1e9)


@pytest.mark.parametrize("value", ["0.5", "-1", "86401", "nan", "inf", "soon"])
def test_an_age_out_of_bounds_is_refused_with_them(value: str) -> None:
    refused = parsed("--max-stream-age", value)
    assert isinstance(refused, str) and "--max-stream-age" in refused
    assert value == "soon" or "1 to 86400 seconds, nor 0" in refused
