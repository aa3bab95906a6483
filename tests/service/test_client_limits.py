"""What each client may take of the server, and what it is told beyond that."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engines.fake import FakeOptions
from labelmint.v1 import label_service_pb2 as pb
from service.admission import MAX_CLIENTS, RequestRate
from service.config import ServerLimits
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, Refusal, RunningServer, refusal, served
from tests.service.identities import TOKENS, TWO, bearer, config

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def limited(**limits: Any) -> Any:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
    return served([slow], config(limits=ServerLimits(**limits)))


def retry_s(refused: Refusal) -> float:
    status: Any = rpc_status.from_call(refused.error)
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    milliseconds = info.retry_delay.ToMilliseconds()
    assert refused.trailers["grpc-retry-pushback-ms"] == str(milliseconds)
    return float(milliseconds / 1000)


@pytest.fixture
def two_clients(tokens: Path) -> Iterator[Callable[..., Any]]:
    """A context of a server with limits and of two clients' metadata."""

    @contextmanager
    def start(**limits: Any) -> Iterator[tuple[RunningServer, Any, Any]]:
        slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
        with served([slow], config(limits=ServerLimits(**limits), token_file=tokens)) as server:
            yield server, bearer(TOKENS["trainer"]), bearer(TOKENS["night-job"])

    yield start


def test_one_client_cannot_take_every_stream(two_clients: Any) -> None:
    with two_clients(max_client_streams=2) as (server, one, two):
        calls = [
            server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=HANG_S, metadata=one)
            for _ in range(2)
        ]
        for call in calls:
            next(iter(call))
        refused = refusal(lambda: server.stub.GenerateSamples(TWO, timeout=HANG_S, metadata=one))
        assert refused.code is EXHAUSTED and retry_s(refused) > 0
        assert "client trainer" in refused.message and "max_client_streams is 2" in refused.message
        assert server.stub.GenerateSamples(TWO, timeout=HANG_S, metadata=two).batch.indices
        calls[0].cancel()
        assert eventually(lambda: server.stub.GenerateSamples(TWO, timeout=HANG_S, metadata=one))
        calls[1].cancel()


def test_one_client_cannot_take_all_samples_under_way(two_clients: Any) -> None:
    with two_clients(max_client_inflight_samples=40) as (server, one, two):
        call = server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=HANG_S, metadata=one)
        next(iter(call))
        refused = refusal(
            lambda: list(
                server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=HANG_S, metadata=one)
            )
        )
        assert refused.code is EXHAUSTED
        assert "max_client_inflight_samples 40" in refused.message
        other = server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=HANG_S, metadata=two)
        assert next(iter(other)).batch.indices
        call.cancel()
        other.cancel()


def test_a_client_that_calls_too_often_is_told_when_to_come_again(two_clients: Any) -> None:
    with two_clients(max_client_requests_per_s=4) as (server, one, two):

        def ask(metadata: Any) -> Any:
            return server.stub.ListModels(pb.ListModelsRequest(), timeout=HANG_S, metadata=metadata)

        for _ in range(4):
            ask(one)
        refused = refusal(lambda: [ask(one) for _ in range(20)])
        assert refused.code is EXHAUSTED
        assert "max_client_requests_per_s" in refused.message
        wait = retry_s(refused)
        assert 0 < wait <= 0.26
        ask(two)
        time.sleep(wait + 0.01)
        ask(one)


def test_a_message_has_no_more_samples_than_the_limit() -> None:
    with limited(max_message_samples=5) as server:
        assert max(len(m.batch.indices) for m in server.stream(count=20)) <= 5
        refused = refusal(lambda: list(server.stream(max_message_samples=6)))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "max_message_samples is 6; the limit is 5" in refused.message
        refused = refusal(lambda: server.generate(count=6))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "can have 6 samples, the limit is 5" in refused.message


def test_rates_are_per_client_refill_evenly_and_forget_the_oldest() -> None:
    rate = RequestRate(2)
    granted = [at / 10 for at in range(100) if not rate.wait_s("a", at / 10)]
    assert granted[:2] == [0, 0.1] and 20 <= len(granted) <= 22
    assert rate.wait_s("b", 10) == 0
    for number in range(2 * MAX_CLIENTS):
        rate.wait_s(str(number), 10)
    assert len(rate._buckets) == MAX_CLIENTS
    assert RequestRate(0).wait_s("a", 0) == 0


def eventually(work: Callable[[], Any]) -> bool:
    """Whether work succeeds within a minute, refused or not at first."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        try:
            work()
            return True
        except grpc.RpcError:
            time.sleep(0.02)
    return False
