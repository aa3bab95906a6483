"""ModelStreamInfer: an answer to each request, in order, and bounded."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from engines.fake import FakeOptions
from service.config import Config, ServerLimits
from service.rpc.inference_exchange import MAX_PENDING
from tests.hangs import eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import arrays_of, exchange, indices, infer_request
from tests.service.test_inference import generated
from tests.service.test_metrics import scraped, value

C = grpc.StatusCode


def test_a_stream_answers_every_request_once_and_in_order(server: RunningServer) -> None:
    def requests() -> Iterator[Any]:
        for number in range(40):
            name = "unknown" if number % 7 == 6 else "fake"
            yield infer_request(indices(number), model_name=name, id=str(number))

    answers = list(exchange(server.channel, requests()))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(40)]
    for number, answer in enumerate(answers):
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        if number % 7 == 6:
            assert answer.error_message.startswith("NOT_FOUND: model is 'unknown'")
        else:
            assert not answer.error_message
            got = {n: a.tobytes() for n, a in arrays_of(answer.infer_response).items()}
            assert got == generated(server, indices=[number])


def test_a_stream_reads_no_more_than_it_may_have_under_way() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=1.0))
    with served([slow]) as server:
        read: list[int] = []

        def requests() -> Iterator[Any]:
            for number in range(100):
                read.append(number)
                yield infer_request(indices(number))

        answers = exchange(server.channel, requests())
        assert eventually(lambda: value(scraped(server), "labelmint_open_streams") >= MAX_PENDING)
        time.sleep(0.2)  # for others to come in, if they can
        assert value(scraped(server), "labelmint_open_streams") == MAX_PENDING
        answers.cancel()
        assert eventually(lambda: not value(scraped(server), "labelmint_open_streams"))
        assert server.generate(count=1).batch.indices


def test_a_drain_answers_what_is_under_way_and_ends_the_stream() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.2))
    with served([slow]) as server, ThreadPoolExecutor() as pool:
        waiting = exchange(server.channel, endless(infer_request(indices(1))))
        got = [next(waiting)]
        draining = pool.submit(server.call, lambda running: running.drain())
        ended = refusal(lambda: got.extend(waiting))
        assert ended.code is C.UNAVAILABLE and "draining" in ended.message
        draining.result()
        errors = [answer.error_message for answer in got]
        answered = len(errors) - sum(map(bool, errors))
        assert answered and not any(errors[:answered])  # then one that was read during the drain
        assert all(e.startswith("UNAVAILABLE") and "draining" in e for e in errors[answered:])
        assert not server.server.ready


def endless(request: Any) -> Iterator[Any]:
    while True:
        yield request


@pytest.mark.parametrize("name", ["max_streams", "max_client_streams"])
def test_open_streams_are_bounded(name: str) -> None:
    limits = ServerLimits(**{name: 2})
    with served(config=Config((), "127.0.0.1:0", limits=limits)) as server:
        held = [exchange(server.channel, endless(infer_request(indices(1)))) for _ in range(2)]
        for one in held:
            next(one)
        refused = refusal(lambda: list(exchange(server.channel, iter([]))))
        assert refused.code is C.RESOURCE_EXHAUSTED and f"{name} is 2" in refused.message
        for one in held:
            one.cancel()


def test_requests_of_a_stream_count_against_the_rate() -> None:
    limits = ServerLimits(max_client_requests_per_s=2)
    with served(config=Config((), "127.0.0.1:0", limits=limits)) as server:
        requests = iter([infer_request(indices(1))] * 5)
        errors = [answer.error_message for answer in exchange(server.channel, requests)]
        assert sum(error.startswith("RESOURCE_EXHAUSTED") for error in errors) >= 3
