"""Engines on a device keep the protocol and the device's rules, whichever runtime launches.

The device is a strict fake of host memory; TensorRT's versions are fakes run by ONNX Runtime; the
third way is ONNX Runtime's own binding to addresses, on its CPU provider.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.open import Bundle
from engines import EngineOptions, open_engine, open_engines
from engines.device_engine import DeviceEngine
from engines.errors import (
    DeviceLost,
    EngineOpenError,
    EngineRunError,
    NotFiniteError,
    OutOfDeviceMemory,
    PlanError,
)
from engines.open_gpu import GpuOptions, Machine
from engines.ort_launch import OrtLauncher
from engines.protocol import Engine
from engines.tensorrt_plan import TensorRTPlan
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import VERSIONS, FakeTensorRT
from tests.engines.test_ort import limits, rows

KINDS = [*VERSIONS, "onnxruntime"]
Open = Callable[[Bundle, tuple[int, ...]], Engine]


class Bench:
    """One device, and engines on it by one runtime."""

    def __init__(self, kind: str, cache: Path) -> None:
        self.kind, self.cache, self.device = kind, cache, FakeDevice()
        self.trt = FakeTensorRT(kind, self.device) if kind in VERSIONS else None
        self.engines: list[Engine] = []

    def open(self, bundle: Bundle, sizes: tuple[int, ...] = (8,), **gpu: Any) -> Engine:
        """Opened, and nothing may be allocated from here on."""
        return self.open_all(bundle, sizes, **{"contexts": 1, **gpu})[0]

    def open_all(self, bundle: Bundle, sizes: tuple[int, ...], **gpu: Any) -> tuple[Engine, ...]:
        if self.trt is None:
            launcher = partial(
                OrtLauncher, bundle.file("labeller.onnx"), batch_sizes=sizes,
                provider="CPUExecutionProvider", half=False,
            )  # fmt: skip
            opened: tuple[Engine, ...] = (
                DeviceEngine(bundle.manifest, "float32", sizes, self.device, launcher),
            )
        else:
            options = EngineOptions(
                "tensorrt", batch_sizes=sizes, gpu=GpuOptions(cache=self.cache, build=True, **gpu)
            )
            opened = open_engines(bundle, options, self.machine).engines
        self.engines += opened
        self.device.sealed = True
        return opened

    @property
    def machine(self) -> Machine:
        return Machine(lambda index: self.device, lambda: self.trt)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "cache")
    yield bench
    for engine in bench.engines:
        engine.close()
    bench.device.assert_nothing_left()


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "cache")
    yield bench
    for engine in bench.engines:
        engine.close()


def assert_same(a: Any, b: Any) -> None:
    assert np.array_equal(a.sample, b.sample) and a.arrays.keys() == b.arrays.keys()
    for name, array in a.arrays.items():
        assert array.dtype == b.arrays[name].dtype
        assert array.tobytes() == b.arrays[name].tobytes(), name


def test_results_are_those_of_the_cpu_whatever_is_kept(graphs: Any, bench: Bench) -> None:
    bundle = graphs.write()
    engine, reference = bench.open(bundle, (2, 5)), open_engine(bundle, EngineOptions())
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(1, 6))
        ws = rows(*rng.random(n))
        ws[:, 0, 1] += rng.integers(100)
        thresholds = rng.choice([0.0, 0.5, np.inf], n).astype(np.float32)
        wanted = tuple(rng.permutation(engine.outputs)[: rng.integers(len(engine.outputs) + 1)])
        parts = [reference.run(ws[i : i + 1], thresholds[i : i + 1], wanted) for i in range(n)]
        found = engine.run(ws, thresholds, wanted)
        kept = [i for i, part in enumerate(parts) if len(part.sample)]
        assert found.sample.tolist() == kept and found.sample.dtype == np.int32
        for name in wanted:
            expected = np.concatenate([part.arrays[name] for part in parts])
            assert found.arrays[name].tobytes() == expected.tobytes(), name
            assert found.arrays[name].shape == expected.shape


def test_results_stay_as_they_were_when_the_engine_runs_again(graphs: Any, bench: Bench) -> None:
    engine = bench.open(graphs.write(), (2,))
    first = engine.run(rows(0.0, 0.0), limits(2), engine.outputs)
    copies = {name: array.copy() for name, array in first.arrays.items()}
    engine.run(rows(0.0, 0.0) + 50, limits(2), engine.outputs)
    engine.close()
    for name, array in first.arrays.items():
        assert np.array_equal(array, copies[name]) and array.flags.owndata, name


def test_discarded_samples_never_cross_the_bus(graphs: Any, bench: Bench) -> None:
    engine = bench.open(graphs.write())
    crossed = {}
    for limit in (1.0, 0.45, -1.0):
        before = bench.device.downloaded
        engine.run(rows(*np.arange(8) / 8), limits(8, limit), ("image", "mask"))
        crossed[limit] = bench.device.downloaded - before
    sample = 16 * 16 * 4  # of image and mask
    books = 8 * 4 + 4 + 8 * 4  # order, number and scores
    assert crossed == {1.0: 8 * sample + books, 0.45: 4 * sample + books, -1.0: books}


def test_memory_is_taken_once_and_given_back(graphs: Any, bench: Bench) -> None:
    engine = bench.open(graphs.write(), (1, 4))
    held = bench.device.allocated
    for n in (1, 4, 2, 3, 1):
        engine.run(rows(*[0.0] * n), limits(n), engine.outputs)  # the device is sealed
    assert bench.device.allocated == held > 0
    engine.close()
    engine.close()
    bench.device.assert_nothing_left()
    with pytest.raises(EngineRunError, match="closed"):
        engine.run(rows(0.0), limits(1), ())


class FailsAt(FakeDevice):
    """Out of memory at its n-th call that is not about giving back."""

    at = 0

    def _enter(self, method: str) -> None:
        super()._enter(method)
        if len(self.calls) == self.at + 1 and not method.startswith(("free", "un", "end_")):
            raise OutOfDeviceMemory("as the test wants it")


@pytest.mark.parametrize("version", VERSIONS)
def test_memory_is_given_back_wherever_opening_fails(
    graphs: Any, tmp_path: Path, version: str
) -> None:
    bundle, first = graphs.write(), Bench(version, tmp_path)
    for engine in first.open_all(bundle, (2,)):
        engine.close()
    options = EngineOptions("tensorrt", batch_sizes=(2,), gpu=GpuOptions(cache=tmp_path))
    for call in range(1000):
        device = FailsAt()
        device.at = call
        trt = FakeTensorRT(version, device)
        machine = Machine(lambda index, device=device: device, lambda trt=trt: trt)  # type: ignore[misc]
        try:
            opened = open_engines(bundle, options, machine).engines
        except OutOfDeviceMemory:
            device.assert_nothing_left()
            continue
        calls = len(device.calls)
        for engine in opened:  # all went well, or one graph was not captured
            engine.close()
        device.assert_nothing_left()
        if calls <= call:
            break
    assert 20 < call < 999


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_named(graphs: Any, bench: Bench, bad: float) -> None:
    engine = bench.open(graphs.write())
    with pytest.raises(NotFiniteError) as caught:
        engine.run(rows(0.1, bad, 0.2), limits(3, 0.15), ("image",))
    assert caught.value.rows == (1,)
    assert engine.run(rows(0.1), limits(1), ()).sample.tolist() == [0]


@pytest.mark.parametrize(("field", "value"), [("sample_offset", 1), ("kept_offset", -1)])
def test_a_graph_that_miscounts_is_caught(
    graphs: Any, tmp_path: Path, field: str, value: int
) -> None:
    setattr(graphs, field, value)
    engine = Bench("onnxruntime", tmp_path).open(graphs.write())
    with pytest.raises(EngineRunError):
        engine.run(rows(0.1, 0.2), limits(2), ("image",))


def test_a_run_that_silently_did_nothing_is_not_taken_for_the_one_before(
    graphs: Any, tensorrt: Bench
) -> None:
    engine = tensorrt.open(graphs.write(), cuda_graphs=False)
    full = rows(*[0.1] * 8)
    engine.run(full, limits(8), engine.outputs)
    for context in engine._launcher._contexts.values():  # type: ignore[attr-defined]
        context._execute = lambda: None
    for n in (8, 7):  # 7: "all but the last", which is what -1 means to a slice
        with pytest.raises(EngineRunError, match="kept -1 of 8"):
            engine.run(full[:n], limits(n), engine.outputs)


def test_a_failed_run_delivers_nothing_and_the_next_one_is_whole(
    graphs: Any, tensorrt: Bench
) -> None:
    engine = tensorrt.open(graphs.write(), cuda_graphs=False)
    assert tensorrt.trt is not None
    tensorrt.trt.runs_fail = True
    with pytest.raises(EngineRunError, match="TensorRT failed"):
        engine.run(rows(0.5), limits(1), engine.outputs)
    tensorrt.trt.runs_fail = False
    assert engine.run(rows(0.5), limits(1), engine.outputs).sample.tolist() == [0]


@pytest.mark.parametrize("method", ["upload", "fill", "synchronize", "download", "use"])
def test_a_device_that_is_out_of_memory_once_goes_on(
    graphs: Any, bench: Bench, method: str
) -> None:
    engine = bench.open(graphs.write())
    bench.device.faults[method] = OutOfDeviceMemory("no room")
    with pytest.raises(OutOfDeviceMemory):
        engine.run(rows(0.5, 0.6), limits(2), engine.outputs)
    assert engine.run(rows(0.7), limits(1), ("image",)).arrays["image"][0, 0, 0, 0] == 10


@pytest.mark.parametrize("method", ["upload", "fill", "synchronize", "download", "use"])
def test_a_lost_device_stays_lost(graphs: Any, bench: Bench, method: str) -> None:
    engine = bench.open(graphs.write())
    bench.device.faults[method] = DeviceLost("gone")
    for _ in range(3):
        with pytest.raises(DeviceLost, match="gone"):
            engine.run(rows(0.5), limits(1), engine.outputs)
    bench.device.synchronize(engine._memory.stream)  # type: ignore[attr-defined]


def test_a_device_lost_under_a_failed_run_is_told_as_such(graphs: Any, tensorrt: Bench) -> None:
    engine = tensorrt.open(graphs.write(), cuda_graphs=False)
    assert tensorrt.trt is not None
    tensorrt.trt.runs_fail = True
    tensorrt.device.faults["synchronize"] = DeviceLost("gone")
    with pytest.raises(DeviceLost, match="gone"):
        engine.run(rows(0.5), limits(1), engine.outputs)


def test_every_context_has_a_stream_of_its_own_and_one_plan(graphs: Any, tensorrt: Bench) -> None:
    assert tensorrt.trt is not None
    bundle = graphs.write()
    tensorrt.open(bundle, (2, 4))
    before = tensorrt.trt.deserialised
    tensorrt.device.sealed = False
    engines = tensorrt.open_all(bundle, (2, 4), contexts=3)
    streams = {engine._memory.stream for engine in engines}  # type: ignore[attr-defined]
    assert len(engines) == len(streams) == 3
    # 8.5 lends a profile to one context at a time, so each engine there has a plan of its own.
    plans = tensorrt.trt.deserialised - before
    assert plans == (3 if tensorrt.kind.startswith("8") else 1)
    results = [e.run(rows(0.1, 0.2, 0.3), limits(3), e.outputs) for e in engines]
    for result in results[1:]:
        assert_same(result, results[0])


def test_every_batch_size_is_launched_as_a_graph(graphs: Any, tensorrt: Bench) -> None:
    engine = tensorrt.open(graphs.write(), (2, 4))
    tensorrt.device.calls.clear()
    for n in (1, 2, 3, 4):
        engine.run(rows(*[0.1] * n), limits(n), ("image",))
    assert tensorrt.device.calls.count("launch") == 4


def test_a_graph_that_cannot_be_recorded_is_run_without(
    graphs: Any, tensorrt: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = graphs.write()
    tensorrt.open(bundle, (2,))
    tensorrt.device.sealed = False
    tensorrt.device.faults["end_capture"] = EngineRunError("cudaErrorStreamCaptureUnsupported")
    engine = tensorrt.open(bundle, (2,))
    assert "run without a CUDA graph" in caplog.text
    tensorrt.device.calls.clear()
    result = engine.run(rows(0.3, 0.2), limits(2), ("image",))
    assert result.sample.tolist() == [0, 1] and "launch" not in tensorrt.device.calls


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("drop_output", "mask", "the manifest needs .*mask"),
        ("mask_type", 6, "mask is output int32"),
        ("mask_width", 15, r"mask .*15"),
    ],
)
def test_a_plan_that_contradicts_the_manifest_is_refused(
    graphs: Any, tensorrt: Bench, field: str, value: Any, words: str
) -> None:
    manifest = graphs.write().manifest
    setattr(graphs, field, value)
    other = graphs.write()
    header = f'{{"version": "{tensorrt.kind}", "gpu": "{tensorrt.device.name}", "sizes": [2]}}\n'
    data = header.encode() + other.file("labeller.onnx").read_bytes()
    with pytest.raises(PlanError, match=words):
        TensorRTPlan(tensorrt.trt, data, manifest, tensorrt.device)


def test_no_room_for_a_context_is_said(graphs: Any, tensorrt: Bench) -> None:
    bundle = graphs.write()
    tensorrt.open(bundle, (2,))
    tensorrt.device.sealed, tensorrt.device.room = False, 0
    with pytest.raises(EngineOpenError, match="no room for an execution context"):
        tensorrt.open(bundle, (2,))


def test_a_bundle_without_heads_renders_images(graphs: Any, bench: Bench) -> None:
    graphs.heads = False
    engine = bench.open(graphs.write())
    result = engine.run(rows(0.1, 0.2, 0.3), limits(3), ("image",))
    assert result.arrays["image"][:, 0, 0, 0].tolist() == [10, 11, 12]
