"""Streams share an engine without harming each other, and nothing is computed for nobody."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.open import Bundle
from engines.errors import NotFiniteError
from engines.fake import FakeEngine, FakeOptions, fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.errors import NEXT_INDEX
from service.server import Server
from tests.service.harness import FakeModel, RunningServer, channel_to, refusal, served
from tests.service.section4 import fake_scores

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
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.5))]) as server:
        first = server.stream(count=8)
        time.sleep(0.1)  # its batch runs
        gone = [server.stream(count=8, start_index=100) for _ in range(10)]
        time.sleep(0.1)
        for call in gone:
            call.cancel()
        assert sum(len(m.batch.indices) for m in first) == 8
        assert drained_to(server, still=0.7) <= 8 + 8


def test_a_failing_sample_ends_only_its_own_stream() -> None:
    """At exactly that sample, whatever the batch, and resumably."""
    share = 0.01
    bundle = fake_bundle(resolution=16)
    with served([FakeModel(options=FakeOptions(not_finite_share=share))]) as server:
        latents = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
        rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=latents.shape, data=latents.tobytes())
        bad = first_bad(bundle, latents, share)
        assert bad % 8  # inside a batch

        def good(_: int) -> int:
            seeds = pb.SamplingOptions(seed=good_seed(bundle, share))
            return sum(len(m.batch.indices) for m in server.stream(count=40, sampling=seeds))

        with ThreadPoolExecutor(4) as pool:
            others = pool.map(good, range(8))
            call = server.stream(
                latents=pb.ExplicitLatents(space=pb.LATENT_SPACE_Z, rows=rows)
            )
            delivered: list[int] = []
            refused = refusal(lambda: delivered.extend(i for m in call for i in m.batch.indices))
            assert refused.code is grpc.StatusCode.DATA_LOSS
            assert f"index {bad} " in refused.message
            assert delivered == list(range(bad))
            assert refused.trailers[NEXT_INDEX] == str(bad)
            assert list(others) == [40] * 8


def first_bad(bundle: Bundle, z: NDArray[np.float32], share: float) -> int:
    """The first row without a finite score."""
    engine = FakeEngine(bundle.manifest, FakeOptions(not_finite_share=share))
    for i, row in enumerate(z):
        ws = np.broadcast_to(row, (1, 6, 16)).astype(np.float32)
        try:
            engine.run(ws, np.array([np.inf], np.float32), ())
        except NotFiniteError:
            return i
    raise AssertionError("no bad row; take another seed")


def good_seed(bundle: Bundle, share: float) -> int:
    """A seed whose first 64 samples are finite."""
    for seed in range(100):
        try:
            fake_scores(bundle, seed, 1, 64, FakeOptions(not_finite_share=share))
        except NotFiniteError:
            continue
        return seed
    raise AssertionError("no good seed; lower the share")


def test_an_engine_that_fails_gives_a_reference_and_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served([FakeModel(options=FakeOptions(fail_after_runs=2))]) as server:
        call = server.stream()
        delivered: list[int] = []
        refused = refusal(lambda: delivered.extend(i for m in call for i in m.batch.indices))
        assert refused.code is grpc.StatusCode.INTERNAL
        assert delivered == list(range(16))
        assert refused.trailers[NEXT_INDEX] == "16"
        reference = refused.message.rpartition(" ")[2]
        assert "reference" in refused.message and "fails after" not in refused.message
        assert any(reference in r.message and r.exc_info for r in caplog.records)
        assert server.stub.ListModels(pb.ListModelsRequest()).models


def test_a_heartbeat_comes_every_second() -> None:
    """Also when one engine run takes longer."""
    with served([FakeModel(options=FakeOptions(seconds_per_run=2.5))]) as server:
        started, beats = time.monotonic(), []
        for message in server.stream(count=1):
            beats.append((time.monotonic() - started, len(message.batch.indices)))
    assert [n for _, n in beats] == [0, 0, 1]
    assert beats[0][0] < 1.5 and beats[1][0] < 2.5


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
        service = running._service
        models = service._models.values()
        admission = service._admission
        return (
            sum(len(m.streams) + len(m.scheduler._lanes) for m in models),
            len(service._streams), admission._streams, admission._samples, admission._bytes,
        )  # fmt: skip

    for _ in range(50):
        if not any(server.call(left)):
            return
        time.sleep(0.1)
    raise AssertionError(server.call(left))
