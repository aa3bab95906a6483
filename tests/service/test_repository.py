"""Models come, change and go while calls go on, and nothing of them is left."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from engines.errors import NotFiniteError
from engines.fake import FakeEngine, FakeMapping, FakeOptions, fake_bundle
from engines.protocol import EngineResult
from labelmint.v1 import label_service_pb2 as pb
from service import loading, repository
from service.config import Config, NamedBundle
from service.errors import NEXT_INDEX, LoadFailed
from service.loading import open_model, warm_up
from service.metrics import Metrics
from service.models import ServedModel
from service.repository import without_folders
from tests.hangs import HANG_S, eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served, served_by
from tests.service.inference_calls import index_of
from tests.service.test_metrics import scraped, value
from tests.service.test_process import bundle_at

SLOW = FakeModel(options=FakeOptions(seconds_per_run=0.05))
C = grpc.StatusCode


def config(drain_s: float = HANG_S, **changes: Any) -> Config:
    return Config(
        bundles=(), listen="127.0.0.1:0", metrics_port=0, runtime="fake", model_drain_s=drain_s,
        **changes,
    )  # fmt: skip


@pytest.fixture
def other(tmp_path: Path) -> NamedBundle:
    """A bundle on disk that is not the one of FakeModel."""
    return NamedBundle("fake", bundle_at(tmp_path / "other", view_layers=2))


@pytest.fixture
def broken(tmp_path: Path) -> NamedBundle:
    folder = bundle_at(tmp_path / "broken")
    (folder / "labeller.onnx").write_bytes(b"x")
    return NamedBundle("fake", folder)


def load(server: RunningServer, named: NamedBundle) -> None:
    server.call(lambda running: running.repository.load(named))


def bundle_id(server: RunningServer) -> str:
    return str(server.generate(count=1).bundle_id)


def status_of_health(server: RunningServer, service: str = "") -> int:
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    return int(health.Check(health_pb2.HealthCheckRequest(service=service), timeout=HANG_S).status)


def test_a_swap_serves_new_calls_anew_and_finishes_streams_on_the_old_model(
    other: NamedBundle,
) -> None:
    with served([SLOW], config()) as server:
        old = bundle_id(server)
        messages_of_stream = server.stream(end_index=80)
        first = next(messages_of_stream)
        load(server, other)
        new = bundle_id(server)
        assert new != old
        rest = list(messages_of_stream)
        assert {message.bundle_id for message in (first, *rest)} == {old}
        assert [i for m in (first, *rest) for i in m.batch.indices] == list(range(80))
        assert index_of(server.channel)["fake"].version == new
        labels = [dict(key) for name, key in scraped(server) if name == "labelmint_model_info"]
        assert labels == [{"model": "fake", "bundle_id": new, "engine": "fake"}]


def test_streams_that_outlast_the_drain_end_resumably(other: NamedBundle) -> None:
    with served([SLOW], config(drain_s=0.2)) as server:
        stream = server.stream()
        positions = [next(stream).next_index]
        old = bundle_id(server)
        load(server, other)
        ended = refusal(lambda: positions.extend(m.next_index for m in stream))
        assert ended.code is C.UNAVAILABLE and "was replaced" in ended.message
        resume = int(ended.trailers[NEXT_INDEX])
        assert resume == positions[-1] > 8
        assert list(server.generate(count=2, start_index=resume).batch.indices) == [
            resume, resume + 1,
        ]  # fmt: skip
        pinned = refusal(lambda: server.generate(count=1, bundle_id=old))
        assert pinned.code is C.FAILED_PRECONDITION


def test_unary_calls_finish_within_the_drain_and_end_after_it(other: NamedBundle) -> None:
    for drain_s, count, done in ((HANG_S, 80, True), (0.1, 800, False)):
        with served([SLOW], config(drain_s)) as server, ThreadPoolExecutor() as pool:
            answer = pool.submit(partial(server.generate, count=count))
            while not value(scraped(server), "labelmint_computed_samples_total"):
                time.sleep(0.01)
            load(server, other)
            if done:
                assert len(answer.result().batch.indices) == count
            else:
                assert refusal(answer.result).code is C.UNAVAILABLE


def test_a_failed_load_leaves_the_old_model_serving_and_is_told_everywhere(
    broken: NamedBundle, caplog: pytest.LogCaptureFixture
) -> None:
    with served(config=config()) as server:
        old = bundle_id(server)
        with pytest.raises(LoadFailed) as caught:
            load(server, broken)
        assert bundle_id(server) == old
        listed = index_of(server.channel)["fake"]
        assert (listed.state, listed.version) == ("READY", old)
        for words in (str(caught.value), listed.reason):
            assert "labeller.onnx has 1 bytes" in words and str(broken.path.parent) not in words
        values = scraped(server)
        for outcome, count in (("failed", 1.0), ("ok", 1.0)):
            labels = frozenset({"model": "fake", "outcome": outcome}.items())
            assert values.get(("labelmint_model_loads_total", labels)) == count
    (record,) = [r for r in caplog.records if r.name == "service.repository"]
    assert "the old one stays" in record.message and "\n" not in record.message


def test_a_load_that_fails_in_a_way_nobody_thought_of_tells_callers_nothing(
    other: NamedBundle, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Exception):
        """Of no tree."""

    def fail(named: NamedBundle) -> ServedModel:
        raise Odd("/secret/path")

    with served(config=config(), open_named=fail) as server:
        with pytest.raises(LoadFailed) as caught:
            load(server, other)
        assert "secret" not in str(caught.value) and server.generate(count=1)
        assert "secret" not in index_of(server.channel)["fake"].reason
    assert "/secret/path" in caplog.text


def test_a_folder_that_changes_under_the_load_is_not_served(other: NamedBundle) -> None:
    def changing(named: NamedBundle) -> ServedModel:
        model = open_model(named, config(), Metrics())
        (named.path / "mapping.onnx").touch()
        return model

    with served(config=config(), open_named=changing) as server:
        old = bundle_id(server)
        with pytest.raises(LoadFailed, match="was changed while it was loaded"):
            load(server, other)
        assert bundle_id(server) == old


@pytest.mark.parametrize(
    ("message", "folder", "told"),
    [
        ("/a b/m/x.onnx has 1 bytes", "/a b/m", "x.onnx has 1 bytes"),
        ("/a/m is not it; /a/m-old/y is", "/a/m", "the bundle is not it; y is"),
        ("m/x.onnx: some model from memory", "m", "x.onnx: some model from memory"),
        ("x needs /usr/lib/libfoo.so and [1/2]", "m", "x needs libfoo.so and [1/2]"),
    ],
)
def test_callers_learn_of_no_folder(message: str, folder: str, told: str) -> None:
    assert without_folders(message, Path(folder)) == told


class NanDepth(FakeEngine):
    """A device that is broken in one output."""

    def run(self, ws: Any, max_uncertainty: Any, outputs: Any, boxes: Any = None) -> EngineResult:
        result = super().run(ws, max_uncertainty, outputs, boxes)
        depth: NDArray[np.float16] = np.full_like(result.arrays["depth"], np.nan)
        return EngineResult(result.sample, {**result.arrays, "depth": depth}, result.content)


class Counting(FakeEngine):
    """Says which sizes it ran, and fails when it is closed under a run."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sizes: list[int] = []
        self.running = False

    def run(self, ws: Any, max_uncertainty: Any, outputs: Any, boxes: Any = None) -> EngineResult:
        self.sizes.append(len(ws))
        self.running = True
        try:
            return super().run(ws, max_uncertainty, outputs, boxes)
        finally:
            self.running = False

    def close(self) -> None:
        assert not self.running
        super().close()


def test_warm_up_runs_every_batch_size_and_refuses_what_is_not_finite() -> None:
    bundle = fake_bundle(resolution=16, num_classes=3)
    mapping = FakeMapping(bundle.manifest.generator)
    engine = Counting(bundle.manifest, None, (1, 4, 8))
    warm_up(engine, mapping, bundle)
    assert engine.sizes == [1, 4, 8]
    with pytest.raises(NotFiniteError, match="uncertainty"):
        warm_up(FakeEngine(bundle.manifest, FakeOptions(not_finite_share=1)), mapping, bundle)
    with pytest.raises(NotFiniteError, match="warm-up: depth"):
        warm_up(NanDepth(bundle.manifest), mapping, bundle)


def test_no_engine_is_closed_under_a_run() -> None:
    opened: list[Counting] = []

    def counting(named: NamedBundle) -> ServedModel:
        bundle, metrics = fake_bundle(resolution=16), Metrics().of_model("fake")
        opened.append(Counting(bundle.manifest, FakeOptions(seconds_per_run=0.01)))
        mapping = FakeMapping(bundle.manifest.generator)
        return ServedModel(named.name, bundle, (opened[-1],), mapping, metrics)

    named = NamedBundle("fake", Path(__file__).parent)
    with served_by(config(drain_s=0.0), lambda _: [counting(named)], counting) as server:
        stop = threading.Event()

        def read(seed: int) -> None:
            while not stop.is_set():
                try:
                    list(server.stream(count=64, sampling=pb.SamplingOptions(seed=seed)))
                except grpc.RpcError as error:
                    assert error.code() is C.UNAVAILABLE, error

        with ThreadPoolExecutor() as pool:
            readers = [pool.submit(read, seed) for seed in range(4)]
            for _ in range(20):
                load(server, named)
            stop.set()
            for reader in readers:
                reader.result()
        assert not server.server.failed.done()
    assert len(opened) == 21 and all(engine._contract.closed for engine in opened)


class Held:
    """Opens bundles once they are released; without a manifest, that fails."""

    def __init__(self, *names: str) -> None:
        """Others are never held."""
        self.names, self.released = names, threading.Event()

    def __call__(self, named: NamedBundle) -> ServedModel:
        assert named.name not in self.names or self.released.wait(HANG_S)
        return open_model(named, config(), Metrics())


def test_loading_holds_up_neither_calls_nor_health(tmp_path: Path) -> None:
    held = Held("slow")
    with served(config=config(), open_named=held) as server, ThreadPoolExecutor() as pool:
        loading = pool.submit(load, server, NamedBundle("slow", tmp_path))
        while "slow" not in index_of(server.channel):
            time.sleep(0.01)
        assert index_of(server.channel)["slow"].state == "LOADING"
        assert "slow" not in index_of(server.channel, ready=True)
        assert server.generate(count=9, model="fake").batch.indices
        assert status_of_health(server) == health_pb2.HealthCheckResponse.SERVING
        held.released.set()
        with pytest.raises(LoadFailed, match="manifest"):
            loading.result(HANG_S)
        assert index_of(server.channel)["slow"].state == "UNAVAILABLE"


def test_a_load_that_hangs_holds_up_no_other_and_ends_at_its_limit(
    other: NamedBundle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    for module in (loading, repository):  # 10 s, which the test would wait
        monkeypatch.setattr(module, "TURN_S", 0.5)
    held, folder = Held("slow"), tmp_path / "nothing"
    folder.mkdir()
    limits = config(load_timeout_s=2)
    with served(config=limits, open_named=held) as server, ThreadPoolExecutor() as pool:
        began = time.monotonic()
        slow = pool.submit(load, server, NamedBundle("slow", folder))
        while "slow" not in index_of(server.channel):
            time.sleep(0.01)
        load(server, other)
        assert bundle_id(server) and time.monotonic() - began < HANG_S
        assert index_of(server.channel)["slow"].state == "LOADING"
        with pytest.raises(LoadFailed, match=r"not loaded within 2 s.*--load-timeout"):
            slow.result(HANG_S)
        assert index_of(server.channel)["slow"].state == "UNAVAILABLE"
        with pytest.raises(LoadFailed, match=r"an earlier load .* has not ended"):
            load(server, NamedBundle("slow", folder))
        assert server.call(opening)
        held.released.set()
        assert eventually(lambda: not server.call(opening))
        with pytest.raises(LoadFailed, match="manifest"):
            load(server, NamedBundle("slow", folder))
    assert f"loading model slow from {folder}" in caplog.text
    assert "model slow has been loading for over 0.5 s" in caplog.text


async def opening(server: Any) -> bool:
    return bool(server.repository.opening)


def test_a_model_that_comes_after_its_limit_is_closed(other: NamedBundle) -> None:
    held, opened = Held("late"), list[ServedModel]()

    def late(named: NamedBundle) -> ServedModel:
        opened.append(held(named))
        return opened[0]

    with served(config=config(load_timeout_s=0.1), open_named=late) as server:
        with pytest.raises(LoadFailed, match=r"within 0\.1 s"):
            load(server, NamedBundle("late", other.path))
        held.released.set()
        assert eventually(lambda: opened and opened[0].mapping_thread._shutdown)
        assert "late" not in index_of(server.channel, ready=True)


def test_an_unload_ends_a_load_at_once_and_the_model_that_comes_later_is_closed(
    other: NamedBundle,
) -> None:
    held, opened = Held("fake"), list[ServedModel]()

    def late(named: NamedBundle) -> ServedModel:
        opened.append(held(named))
        return opened[-1]

    with served([SLOW], config(), late) as server, ThreadPoolExecutor() as pool:
        stream = server.stream(end_index=80)
        first = next(stream)
        loads = [pool.submit(load, server, other) for _ in range(2)]  # the second waits
        assert eventually(lambda: len(server.server.repository._loading) == 2)
        assert eventually(lambda: server.call(opening))
        server.call(lambda running: running.repository.unload("fake"))  # within HANG_S
        for one in loads:
            with pytest.raises(LoadFailed, match="fake was unloaded while it was loaded"):
                one.result(HANG_S)
        listed = index_of(server.channel)["fake"]
        assert (listed.state, listed.reason) == ("UNAVAILABLE", "unloaded")
        with pytest.raises(LoadFailed, match=r"an earlier load .* has not ended"):
            load(server, other)
        indices = [i for m in (first, *stream) for i in m.batch.indices]
        assert indices == list(range(80))  # what was open is drained as ever
        held.released.set()
        assert eventually(lambda: opened and opened[0].mapping_thread._shutdown)
        assert index_of(server.channel)["fake"].state == "UNAVAILABLE"
        load(server, other)
        assert len(opened) == 2 and server.generate(count=1)


def test_an_unload_just_when_a_load_ends_leaves_no_model_open(other: NamedBundle) -> None:
    opened: list[ServedModel] = []

    def open_it(named: NamedBundle) -> ServedModel:
        opened.append(open_model(named, config(), Metrics()))
        return opened[-1]

    with served([], config(), open_it) as server:

        async def load_and_unload(passes: int, running: Any) -> None:
            loading = asyncio.create_task(running.repository.load(other))
            while not opened:
                await asyncio.sleep(0)
            for _ in range(passes):  # each a turn of the loop later
                await asyncio.sleep(0)
            await running.repository.unload("fake")
            await asyncio.wait([loading])
            loading.exception()

        for passes in range(12):
            opened.clear()
            server.call(partial(load_and_unload, passes))
            assert eventually(lambda: opened[0].mapping_thread._shutdown)


def test_many_loads_that_hang_hold_up_another_for_under_two_turns(
    other: NamedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loading, repository):
        monkeypatch.setattr(module, "TURN_S", 0.5)
    names = [
        f"slow{number}" for number in range(80)
    ]  # in whole turns, twice the limit of the first
    held = Held(*names)

    async def begin(running: Any) -> None:
        slow = [running.repository.load(NamedBundle(name, tmp_path)) for name in names]
        loads.extend(map(asyncio.ensure_future, slow))
        await asyncio.sleep(0.1)

    async def end(running: Any) -> None:
        held.released.set()
        ended = await asyncio.gather(*loads, return_exceptions=True)
        assert all(isinstance(error, LoadFailed) for error in ended)

    loads: list[asyncio.Future[None]] = []
    with served(config=config(load_timeout_s=20), open_named=held) as server:
        server.call(begin)
        try:
            load(server, other)
            assert bundle_id(server) and not [one for one in loads if one.done()]
        finally:
            server.call(end)
