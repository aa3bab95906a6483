"""On a real GPU: everything that elsewhere stands on a fake device. Skips with a reason."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from bundle import Bundle, open_bundle
from bundle.manifest import LABELLER
from engines import EngineOptions, default_options, open_engine, open_engines, open_mapping
from engines.content import content_columns
from engines.cuda import CudaDevice
from engines.engine_cache import key_of, plan_path, read_sidecar, write_plan
from engines.errors import EngineOpenError, OutOfDeviceMemory, PlanError, RuntimeMissing
from engines.onnx_graph import graph_from_bundle
from engines.open_gpu import GpuOptions
from engines.ort_launch import CUDA, open_device_session, provider_options
from engines.plan_parity import (
    parity_of_arrays,
    refuse_difference,
    unfiltered_arrays,
)
from engines.protocol import Engine, Precision
from engines.run_memory import RunMemory
from engines.sampling import ws_from_indices
from engines.signature import graph_inputs
from engines.tensorrt_module import tensorrt_module, version_of

pytestmark = pytest.mark.gpu
SIZES = (2, 8)
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def ws(bundle: Bundle) -> Any:
    mapping, generator = open_mapping(bundle, EngineOptions()), bundle.manifest.generator
    return ws_from_indices(mapping, generator, default_options(generator), range(32))


@pytest.fixture(scope="module")
def cache(device: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        tensorrt_module()
    except RuntimeMissing as error:
        pytest.skip(str(error))
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module", params=PRECISIONS)
def options(request: pytest.FixtureRequest, cache: Path) -> EngineOptions:
    gpu = GpuOptions(cache=cache, build=True)
    return EngineOptions("tensorrt", precision=request.param, batch_sizes=SIZES, gpu=gpu)


@pytest.fixture(scope="module")
def cuda(device: CudaDevice) -> None:
    if CUDA not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")


@pytest.fixture
def engines(bundle: Bundle, options: EngineOptions) -> Iterator[tuple[Engine, ...]]:
    opened = open_engines(bundle, options).engines
    yield opened
    for engine in opened:
        engine.close()


def run(engine: Engine, ws: Any, limit: float = np.inf) -> Any:
    return engine.run(ws, np.full(len(ws), limit, np.float32), engine.outputs)


def assert_same(a: Any, b: Any) -> None:
    assert a.sample.tolist() == b.sample.tolist()
    for name, array in a.arrays.items():
        assert array.tobytes() == b.arrays[name].tobytes(), name


def test_bytes_go_there_and_back(device: CudaDevice) -> None:
    stream, size = device.stream(), 1 << 20
    host, back, address = device.pinned(size), device.pinned(size), device.allocate(size)
    host[:] = np.random.default_rng(0).integers(256, size=size)
    device.upload(address, host, stream)
    device.download(back, address, stream)
    device.synchronize(stream)
    assert (host == back).all()
    device.begin_capture(stream)
    device.fill(address, 7, size // 2, stream)
    graph = device.end_capture(stream)
    device.launch(graph, stream)
    device.download(back, address, stream)
    device.synchronize(stream)
    assert (back[: size // 2] == 7).all() and (back[size // 2 :] == host[size // 2 :]).all()
    device.end_graph(graph)
    device.free(address)
    device.unpin(host)
    device.unpin(back)
    device.end_stream(stream)


def test_too_much_memory_is_refused_and_the_device_goes_on(device: CudaDevice) -> None:
    with pytest.raises(OutOfDeviceMemory, match="cudaErrorMemoryAllocation"):
        device.allocate(1 << 50)
    device.free(device.allocate(1 << 20))


def test_a_built_engine_is_within_tolerance(
    bundle: Bundle, options: EngineOptions, engines: tuple[Engine, ...], ws: Any, device: CudaDevice
) -> None:
    assert options.precision is not None
    key = key_of(
        bundle.manifest.bundle_id, device, version_of(tensorrt_module()), options.precision
    )
    sidecar = read_sidecar(plan_path(options.gpu.cache, key))
    assert [parity.batch_size for parity in sidecar.parity] == list(SIZES)
    reference = open_engine(bundle, EngineOptions())
    expected = unfiltered_arrays(reference, ws)
    found = unfiltered_arrays(engines[0], ws)
    columns = content_columns(bundle.manifest)
    parity = parity_of_arrays("cpu", expected, found, SIZES[-1], columns)
    refuse_difference(parity, options.precision)


def test_a_samples_bits_do_not_depend_on_engine_company_or_graphs(
    bundle: Bundle, options: EngineOptions, engines: tuple[Engine, ...], ws: Any
) -> None:
    first = run(engines[0], ws[:8])
    for _ in range(20):
        assert_same(run(engines[0], ws[:8]), first)
    assert_same(run(engines[1], ws[:8]), first)
    again = np.concatenate([ws[:5], ws[20:23]])
    other = run(engines[0], again)
    for name, array in other.arrays.items():
        assert array[:5].tobytes() == first.arrays[name][:5].tobytes(), name
    plain = replace(options, gpu=replace(options.gpu, cuda_graphs=False, contexts=1))
    engine = open_engine(bundle, plain)
    assert_same(run(engine, ws[:8]), first)
    engine.close()


def test_two_engines_at_once_give_what_each_gives_alone(
    engines: tuple[Engine, ...], ws: Any
) -> None:
    alone = [run(engines[0], ws[i : i + 8]) for i in range(0, 32, 8)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            pairs = [
                pool.submit(run, e, ws[i : i + 8]) for i, e in ((0, engines[0]), (8, engines[1]))
            ]
            for pair, expected in zip(pairs, alone, strict=False):
                assert_same(pair.result(), expected)


def test_what_is_kept_is_what_the_scores_say(engines: tuple[Engine, ...], ws: Any) -> None:
    whole = run(engines[0], ws[:8])
    scores = whole.arrays["uncertainty"]
    for limit in (-1.0, *np.sort(scores)[[0, 3, 7]].tolist()):
        kept = run(engines[0], ws[:8], limit)
        expected = np.flatnonzero(scores <= np.float32(limit))
        assert kept.sample.tolist() == expected.tolist()
        for name, array in kept.arrays.items():
            assert array.tobytes() == whole.arrays[name][expected].tobytes(), name


def test_a_plan_cut_short_is_refused_by_tensorrt_too(
    bundle: Bundle, options: EngineOptions, engines: tuple[Engine, ...], device: CudaDevice,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A description that fits it, so that it gets past the hash."""
    assert options.precision is not None
    key = key_of(
        bundle.manifest.bundle_id, device, version_of(tensorrt_module()), options.precision
    )
    path = plan_path(options.gpu.cache, key)
    data, sidecar = path.read_bytes()[:4096], read_sidecar(path)
    described = json.loads(path.with_suffix(".json").read_text())
    described |= {"size": len(data), "sha256": sha256(data).hexdigest()}
    target = plan_path(tmp_path, key)
    target.parent.mkdir(parents=True)
    write_plan(target, data, sidecar)
    target.with_suffix(".json").write_text(json.dumps(described))
    spoilt = replace(options, gpu=replace(options.gpu, cache=tmp_path, build=False))
    with pytest.raises(PlanError, match="refuses the engine"):
        open_engines(bundle, spoilt)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("cuda")
def test_onnxruntime_on_the_gpu_is_within_tolerance(
    bundle: Bundle, ws: Any, precision: Precision
) -> None:
    engine = open_engine(
        bundle, EngineOptions("onnxruntime-cuda", precision=precision, batch_sizes=(8,))
    )
    expected = unfiltered_arrays(open_engine(bundle, EngineOptions()), ws)
    found, columns = unfiltered_arrays(engine, ws), content_columns(bundle.manifest)
    parity = parity_of_arrays("cpu", expected, found, 8, columns)
    refuse_difference(parity, precision)
    assert_same(run(engine, ws[:8]), run(engine, ws[:8]))
    engine.close()


# Bookkeeping of a few numbers, which ONNX Runtime may keep on the CPU.
SMALL = {
    "Shape", "Gather", "Unsqueeze", "Squeeze", "Concat", "Range", "Cast", "Slice", "Reshape",
    "Mul", "Add", "Sub", "Div", "Equal", "Where",
}  # fmt: skip


@pytest.mark.usefixtures("cuda")
def test_no_node_of_the_hot_path_falls_to_the_cpu(
    bundle: Bundle, device: CudaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the profile is written
    memory = RunMemory(device, bundle.manifest, 8)
    providers = provider_options(CUDA, memory, True)
    graph = graph_from_bundle(bundle, LABELLER["float16"])
    assert open_device_session(graph, providers, 8).get_providers()[0] == CUDA
    given = ort.SessionOptions()
    given.enable_profiling = True
    session = ort.InferenceSession(graph.content, given, providers=providers)
    feed = {
        name: np.zeros((8, *spec.extents), np.float32)
        for name, spec in graph_inputs(bundle.manifest).items()
    }
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [
        e["args"] for e in events if e.get("cat") == "Node" and "provider" in e.get("args", {})
    ]
    on_cpu = {n["op_name"] for n in nodes if n["provider"] == "CPUExecutionProvider"}
    assert nodes and on_cpu <= SMALL, on_cpu - SMALL
    memory.close()


def test_a_fallback_is_taken_only_when_it_is_listed(bundle: Bundle, device: CudaDevice) -> None:
    nowhere = GpuOptions(devices=(99,))
    listed = EngineOptions("onnxruntime-cuda", fallbacks=("onnxruntime",), gpu=nowhere)
    assert open_engines(bundle, listed).runtime == "onnxruntime"
    with pytest.raises(EngineOpenError):
        open_engines(bundle, replace(listed, fallbacks=()))
