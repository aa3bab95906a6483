"""Streams share an engine without harming each other, and nothing is computed for nobody."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.open import Bundle
from engines.errors import NotFiniteError
from engines.fake import FakeEngine, FakeOptions, fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.delivery import HEARTBEAT_EXAMINED
from service.errors import NEXT_INDEX
from service.logs import REQUEST_ID_HEADER
from service.server import Server
from tests.service.harness import FakeModel, RunningServer, channel_to, refusal, served

SMALL_WINDOW = ("grpc.http2.lookahead_bytes", 65536)  # of HTTP/2, or tens of MB fit in flight


def computed(server: RunningServer) -> int:
    """Samples that engines ran so far."""
    value = server.server.metrics.registry.get_sample_value(
        "labelmint_computed_samples_total", {"model": "fake"}
    )
    return int(value or 0)


def drained_to(server: RunningServer, still: float = 0.3) -> int:
    """Samples run once nothing runs any more."""
    before = -1
    while (now := computed(server)) != before:
        before = now
        time.sleep(still)
    return now


def test_a_slow_reader_slows_only_itself() -> None:
    big = FakeModel(bundle=fake_bundle(resolution=128))
    with served([big]) as server, channel_to(server.server.port, SMALL_WINDOW) as channel:
        slow = LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest())
        assert next(iter(slow)).batch.indices
        stuck = drained_to(server)
        assert stuck < 1500  # its window and what HTTP/2 holds, though it is endless
        for _ in range(3):
            assert sum(len(m.batch.indices) for m in server.stream(count=100)) == 100
        assert computed(server) < stuck + 450  # it drew nothing meanwhile
        assert [i for m in islice(slow, 60) for i in m.batch.indices][:3]  # and goes on
        slow.cancel()


def test_a_heavier_stream_gets_so_much_more() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.01))]) as server:
        calls = {weight: server.stream(weight=weight, start_index=weight) for weight in (1, 4)}
        with ThreadPoolExecutor(2) as pool:

            def reached(weight: int) -> int:
                last = 0
                until = time.monotonic() + 2
                for message in calls[weight]:
                    last = message.next_index - weight
                    if time.monotonic() > until:
                        calls[weight].cancel()
                        break
                return last

            light, heavy = pool.map(reached, calls)
    assert 3.2 < heavy / light < 4.8


def test_a_batch_waits_a_little_for_company_when_told_to() -> None:
    """Rows that come one by one meet in one engine run."""
    with served([FakeModel(batch_delay_s=0.4)]) as server, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        alone = server.generate(count=1, start_index=50)
        assert time.monotonic() - began >= 0.4 and len(alone.batch.indices) == 1
        asked = [pool.submit(server.generate, count=2, start_index=2 * n) for n in range(4)]
        assert [list(a.result().batch.indices) for a in asked] == [
            [2 * n, 2 * n + 1] for n in range(4)
        ]
        runs = server.server.metrics.registry.get_sample_value(
            "labelmint_engine_seconds_count", {"model": "fake"}
        )
        assert runs == 2


def test_callers_may_leave_at_any_time(caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a write as well; it is no fault of the server."""
    with served([FakeModel(bundle=fake_bundle(resolution=64))]) as server:
        for number in range(60):
            call = server.stream()
            for _ in islice(call, number % 3):
                pass
            time.sleep(0.001 * (number % 7))
            call.cancel()
        assert len(server.generate(count=1).batch.indices) == 1
    assert not caplog.records


def test_a_cancelled_stream_stops_computing() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.01))]) as server:
        call = server.stream()
        next(iter(call))
        call.cancel()
        at = drained_to(server)
        assert at < 2000
        assert list(server.generate(count=2).batch.indices) == [0, 1]


def test_an_expired_stream_stops_computing() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.01))]) as server:
        refused = refusal(lambda: list(server.stream(timeout=0.3)))
        assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert drained_to(server) < 8 * 60


def test_what_waits_behind_a_long_run_is_dropped_when_its_caller_leaves() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=1.5))]) as server:
        first = server.stream(count=8)
        time.sleep(0.1)  # its batch runs
        gone = [server.stream(count=8, start_index=100) for _ in range(10)]
        time.sleep(0.1)
        for call in gone:
            call.cancel()
        assert sum(len(m.batch.indices) for m in first) == 8
        assert drained_to(server, still=2.0) == 8


def test_a_failing_sample_ends_only_its_own_stream() -> None:
    """At exactly that sample, whatever the batch, and resumably."""
    options = FakeOptions(not_finite_share=0.01, not_finite_output="content", seconds_per_run=0.005)
    z = np.random.default_rng(1).standard_normal((400, 16)).astype(np.float32)
    bad = first_bad(fake_bundle(resolution=16), z, options)
    assert bad % 8 and bad > 16  # inside a batch, and not the first
    with served([FakeModel(options=options)]) as server, ThreadPoolExecutor(3) as pool:
        fine = latents_of(np.repeat(z[:1], 600, axis=0))
        others = [pool.submit(lambda: delivered_by(server.stream(latents=fine))) for _ in range(3)]
        delivered: list[int] = []
        call = server.stream(latents=latents_of(z))
        refused = refusal(lambda: delivered.extend(i for m in call for i in m.batch.indices))
        assert refused.code is grpc.StatusCode.DATA_LOSS
        assert f"the content of index {bad} is not finite" in refused.message
        assert delivered == list(range(bad))
        assert refused.trailers[NEXT_INDEX] == str(bad)
        assert not any(other.done() for other in others)  # they shared its batches,
        assert [other.result() for other in others] == [list(range(600))] * 3  # unharmed


def delivered_by(call: Any) -> list[int]:
    return [i for message in call for i in message.batch.indices]


def latents_of(z: NDArray[np.float32]) -> pb.ExplicitLatents:
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=z.shape, data=z.tobytes())
    return pb.ExplicitLatents(space=pb.LATENT_SPACE_Z, rows=rows)


def first_bad(bundle: Bundle, z: NDArray[np.float32], options: FakeOptions) -> int:
    """The first row without a finite score."""
    engine = FakeEngine(bundle.manifest, options)
    for i, row in enumerate(z):
        ws = np.broadcast_to(row, (1, 6, 16)).astype(np.float32)
        try:
            engine.run(ws, np.array([np.inf], np.float32), ())
        except NotFiniteError:
            return i
    raise AssertionError("no bad row; take another seed")


def test_an_engine_that_fails_gives_a_request_id_and_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served([FakeModel(options=FakeOptions(fail_after_runs=2))]) as server:
        call = server.stream()
        delivered: list[int] = []
        refused = refusal(lambda: delivered.extend(i for m in call for i in m.batch.indices))
        assert refused.code is grpc.StatusCode.INTERNAL
        assert delivered == list(range(16))
        assert refused.trailers[NEXT_INDEX] == "16"
        assert refused.message.endswith(f"request id {refused.trailers[REQUEST_ID_HEADER]}")
        assert "fails after" not in refused.message
        assert any("fails after" in r.message and r.exc_info for r in caplog.records)
        assert server.stub.ListModels(pb.ListModelsRequest()).models


def test_a_heartbeat_comes_every_second() -> None:
    """Also when one engine run takes longer."""
    with served([FakeModel(options=FakeOptions(seconds_per_run=2.5))]) as server:
        started, beats = time.monotonic(), []
        for message in server.stream(count=1):
            beats.append((time.monotonic() - started, len(message.batch.indices)))
    assert [n for _, n in beats] == [0, 0, 1]
    assert beats[0][0] < 1.5 and beats[1][0] < 2.5


def test_a_filtered_stream_advances_though_nothing_is_kept() -> None:
    """A batch of 8 discarded rows comes every 0.2 s, a heartbeat before 256 of them are in."""
    nothing = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0)
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.2))]) as server:
        call = server.stream(filter=nothing)
        reported = [message.next_index for message in islice(call, 2)]
        call.cancel()
    assert 0 < reported[0] < reported[1] and reported[0] < HEARTBEAT_EXAMINED


def test_the_end_of_a_server_is_the_end_of_its_streams(caplog: pytest.LogCaptureFixture) -> None:
    """Also without a drain, and while all of them run."""
    with served() as server:
        calls = [server.stream() for _ in range(5)]
        for call in calls:
            next(iter(call))
        server.end()
        for call in calls:
            refused = refusal(partial(list, call))
            assert refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    # gRPC may say itself that it aborts them.
    assert not [r for r in caplog.records if not r.name.startswith("grpc")]


def test_many_streams_each_get_their_own(server: RunningServer) -> None:
    def read(number: int) -> list[int]:
        query = {"start_index": 1000 * number, "count": 50}
        return [i for m in server.stream(**query) for i in m.batch.indices]

    with ThreadPoolExecutor(40) as pool:
        results = list(pool.map(read, range(40)))
    assert results == [list(range(1000 * n, 1000 * n + 50)) for n in range(40)]


def test_nothing_is_left_behind(server: RunningServer) -> None:
    """Lanes, reservations and streams of the calls above are gone."""

    async def left(running: Server) -> tuple[int, ...]:
        serving = running._serving
        models = running.repository.models.values()
        admission = serving._admission
        return (
            sum(len(m.streams) + len(m.scheduler.lanes) + m.ahead.streams for m in models),
            len(serving._stops), len(admission._clients), *vars(admission._total).values(),
        )  # fmt: skip

    for _ in range(600):
        if not any(server.call(left)):
            return
        time.sleep(0.1)
    raise AssertionError(server.call(left))
