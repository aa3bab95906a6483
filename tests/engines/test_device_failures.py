"""Whatever fails on a device: nothing wrong is delivered, and what was taken is given back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import EngineOptions, open_engines
from engines.errors import (
    DeviceLost,
    EngineOpenError,
    EngineRunError,
    NotFiniteError,
    OutOfDeviceMemory,
    PlanError,
)
from engines.open_gpu import GpuDrivers, GpuOptions
from engines.signature import graph_inputs, graph_outputs
from engines.tensorrt_launch import TensorRTLauncher
from engines.tensorrt_plan import TensorRTPlan
from tests.engines.device_bench import Bench
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import VERSIONS, FakeTensorRT
from tests.engines.test_ort import limits, rows


class FailsAt(FakeDevice):
    """Out of memory at its n-th call that is not about giving back."""

    at = 0

    def _enter(self, method: str) -> None:
        super()._enter(method)
        if len(self.calls) == self.at + 1 and not method.startswith(("free", "un", "end_")):
            raise OutOfDeviceMemory("as the test wants it")


def drivers_of(device: FakeDevice, trt: FakeTensorRT) -> GpuDrivers:
    return GpuDrivers(lambda index: device, lambda: trt)


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
        drivers = drivers_of(device, trt)
        try:
            opened = open_engines(bundle, options, drivers).engines
        except OutOfDeviceMemory:
            device.assert_nothing_left()
            continue
        calls = len(device.calls)
        for survivor in opened:  # all went well, or one graph was not captured
            survivor.close()
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
    assert isinstance(engine._launcher, TensorRTLauncher)
    for context in engine._launcher._contexts._contexts.values():
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
    bench.device.synchronize(engine._memory.stream)


def test_a_device_lost_under_a_failed_run_is_told_as_such(graphs: Any, tensorrt: Bench) -> None:
    engine = tensorrt.open(graphs.write(), cuda_graphs=False)
    assert tensorrt.trt is not None
    tensorrt.trt.runs_fail = True
    tensorrt.device.faults["synchronize"] = DeviceLost("gone")
    with pytest.raises(DeviceLost, match="gone"):
        engine.run(rows(0.5), limits(1), engine.outputs)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("drop_output", "mask", "the bundle needs .*mask"),
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
    header = f'{{"version": "{tensorrt.kind}", "gpus": ["{tensorrt.device.name}"], "sizes": [2]}}\n'
    data = header.encode() + other.file("labeller.onnx").read_bytes()
    with pytest.raises(PlanError, match=words):
        TensorRTPlan(
            tensorrt.trt, data, graph_inputs(manifest), graph_outputs(manifest), tensorrt.device
        )


def test_what_tensorrt_knows_of_shapes_before_and_after_it_is_told_the_batch_is_all_right(
    graphs: Any, tensorrt: Bench
) -> None:
    def unknown(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-1 for _ in shape) if -1 in shape else shape

    def fixed(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(2 if extent < 0 else extent for extent in shape)

    assert tensorrt.trt is not None
    bundle = graphs.write()
    for tensorrt.trt.says_shape in (unknown, fixed):
        tensorrt.device.sealed = False
        result = tensorrt.open(bundle, (2,)).run(rows(0.5, 0.25), limits(2), ("mask",))
        assert len(result.sample) == 2


def test_a_context_whose_outputs_would_not_fit_their_memory_is_refused(
    graphs: Any, tensorrt: Bench
) -> None:
    def wider(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], 99) if name == "mask" and -1 not in shape else shape

    assert tensorrt.trt is not None
    tensorrt.trt.says_shape = wider
    with pytest.raises(PlanError, match=r"mask is \[2, .*, 99\] in batches of 2"):
        tensorrt.open(graphs.write(), (2,))


def test_no_room_for_a_context_is_said(graphs: Any, tensorrt: Bench) -> None:
    bundle = graphs.write()
    tensorrt.open(bundle, (2,))
    tensorrt.device.sealed, tensorrt.device.room = False, 0
    words = "cannot create an execution context|no working memory for batches of 2"
    with pytest.raises(EngineOpenError, match=f"({words}): .*; use smaller batches"):
        tensorrt.open(bundle, (2,))
