"""Engines on a device keep the protocol and the device's rules, whichever runtime launches.

The device is a strict fake of host memory; TensorRT's versions are fakes run by ONNX Runtime; the
third way is ONNX Runtime's own binding to addresses, on its CPU provider.
"""

from typing import Any

import numpy as np
import pytest

from engines import EngineOptions, open_engine
from engines.content import boxes_of_all
from engines.errors import (
    EngineRunError,
)
from tests.engines.device_bench import Bench
from tests.engines.test_ort import limits, rows


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


def test_samples_that_a_predicate_rejects_never_cross_the_bus(graphs: Any, bench: Bench) -> None:
    graphs.boxes = 2
    bundle = graphs.write()
    engine = bench.open(bundle)
    reference = open_engine(bundle, EngineOptions(batch_sizes=(8,)))
    ws = rows(*[0.0] * 6)
    ws[:, 0, 1] = np.arange(6)
    boxes = np.repeat(boxes_of_all(2, 15)[None], 6, axis=0)
    boxes[:, 0, 0, 9] = 4  # the confidence, which is the row's number
    boxes[2, 1, 0], boxes[2, 1, 1] = -np.inf, np.inf  # the second alternative of one row
    before = bench.device.downloaded
    found = engine.run(ws, limits(6), ("image",), boxes)
    crossed = bench.device.downloaded - before
    assert found.sample.tolist() == [2, 4, 5]
    assert crossed == 3 * 16 * 16 * 3 + 8 * 4 + 4 + 8 * 4 + 8 * 15 * 4
    assert_same(found, reference.run(ws, limits(6), ("image",), boxes))
    assert found.content is not None
    np.testing.assert_array_equal(found.content[:, 9], np.arange(6))
    assert engine.run(ws, limits(6), ()).sample.tolist() == list(range(6))


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


def test_every_context_has_a_stream_of_its_own_and_one_plan(graphs: Any, tensorrt: Bench) -> None:
    assert tensorrt.trt is not None
    bundle = graphs.write()
    tensorrt.open(bundle, (2, 4))
    before = tensorrt.trt.deserialized
    tensorrt.device.sealed = False
    engines = tensorrt.open_all(bundle, (2, 4), contexts=3)
    streams = {engine._memory.stream for engine in engines}
    assert len(engines) == len(streams) == 3
    # 8.5 lends a profile to one context at a time, so each engine there has a plan of its own.
    plans = tensorrt.trt.deserialized - before
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


def test_a_bundle_without_heads_renders_images(graphs: Any, bench: Bench) -> None:
    graphs.heads = False
    engine = bench.open(graphs.write())
    result = engine.run(rows(0.1, 0.2, 0.3), limits(3), ("image",))
    assert result.arrays["image"][:, 0, 0, 0].tolist() == [10, 11, 12]
