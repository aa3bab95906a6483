"""Plans are built as each TensorRT version wants it, compared before they are kept, and reused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import Bundle, open_bundle
from bundle.manifest import LABELLER
from engines.device import Device
from engines.engine_cache import key_of, plan_path, read_sidecar
from engines.errors import EngineOpenError, PlanDiffers, PlanError, PlanMissing, RuntimeMissing
from engines.onnx_graph import OnnxGraph, graph_from_bundle
from engines.plan_build import CachedPlan, PlanOptions, plans_for_bundle
from engines.plan_parity import TOLERANCES, Arrays, PlanParity, parity_of_arrays, refuse_difference
from engines.plan_variant import labeller_variant
from engines.signature import graph_inputs
from engines.tensorrt_build import PlanRequest, plan_from_graph, profiles_of
from engines.tensorrt_module import logger_from_module
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import VERSIONS, FakeTensorRT
from tests.full_disk import files_of_at_most


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> FakeTensorRT:
    return FakeTensorRT(request.param, FakeDevice())


def built(trt: FakeTensorRT) -> tuple[Any, Any]:
    """The network and the configuration of the last build."""
    return trt.built[-1].network, trt.built[-1].config


def plan_for_bundle(bundle: Bundle, trt: Any, device: Device, wanted: PlanOptions) -> CachedPlan:
    """Of the labeller in float32."""
    variant = labeller_variant(bundle, "float32")
    return plans_for_bundle(bundle, trt, device, variant, wanted)[0]


def options(cache: Path, *sizes: int, **changes: Any) -> PlanOptions:
    given = {"build": True, "parity_samples": 8} | changes
    return PlanOptions(cache, sizes or (4,), **given)


def test_precision_is_told_only_to_a_version_that_does_not_read_it_from_the_graph(
    trt: FakeTensorRT, tiny_bundle: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    for precision, half in (("float32", False), ("float16", True)):
        graph = graph_from_bundle(bundle, LABELLER[precision])
        plan_from_graph(
            trt, PlanRequest(graph, half, profiles_of(graph_inputs(bundle.manifest), (1, 4)))
        )
        network, config = built(trt)
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", 0)
        if trt.__version__.startswith("8"):
            assert flag == 0
            assert config.flags == {"OBEY_PRECISION_CONSTRAINTS"} | ({"FP16"} if half else set())
            constrained = [layer for layer in network.layers if layer.precision is not None]
            kinds = {layer.precision.name for layer in constrained}
            assert kinds == ({"FLOAT", "HALF"} if half else {"FLOAT"})
            shapes = [layer for layer in network.layers if layer.type is trt.LayerType.SHAPE]
            assert shapes and all(layer.precision is None for layer in shapes)
            for layer in network.layers:
                for i, kind in layer.output_types.items():
                    assert kind == layer.get_output(i).dtype.name in ("FLOAT", "HALF")
        else:
            assert network.flags >> int(flag) & 1
            assert config.flags == {"STRICT_NANS"} & set(trt.BuilderFlag.__members__)
            assert all(layer.precision is None for layer in network.layers)


def test_batch_sizes_are_profiles_of_one_size_each(trt: FakeTensorRT, graphs: Any) -> None:
    bundle = graphs.write()
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1, 3, 8)),
    )
    plan_from_graph(trt, request)
    shapes = [profile.shapes for profile in built(trt)[1].profiles]
    assert [s["ws"] for s in shapes] == [((n, 6, 16),) * 3 for n in (1, 3, 8)]
    assert [s["max_uncertainty"] for s in shapes] == [((n,),) * 3 for n in (1, 3, 8)]


def test_kernels_of_other_libraries_are_switched_off_where_they_could_be_on(
    trt: FakeTensorRT, graphs: Any
) -> None:
    bundle = graphs.write()
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
        workspace_bytes=1 << 20,
    )
    plan_from_graph(trt, request)
    config = built(trt)[1]
    on = {source.name for source in trt.TacticSource if config.tactics >> int(source) & 1}
    assert on == {"EDGE_MASK_CONVOLUTIONS"} and config.pool == ("WORKSPACE", 1 << 20)
    wanted = {"DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"}
    assert config.previews == (wanted if trt.__version__.startswith("8") else set())


@pytest.mark.parametrize("known", [None, b"timings of old", b"garbage"])
def test_timings_are_kept_and_garbage_among_them_is_no_matter(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path, known: bytes | None
) -> None:
    bundle, cache = graphs.write(), tmp_path / "cache.timing"
    if known is not None:
        cache.write_bytes(known)
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
        timing_cache=cache,
    )
    plan_from_graph(trt, request)
    assert built(trt)[1].timing.known == (known if known == b"timings of old" else b"")
    assert cache.read_bytes() == b"timings"


def test_a_full_disk_loses_the_new_timings_alone(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, cache = graphs.write(), tmp_path / "timings" / "cache.timing"
    cache.parent.mkdir()
    cache.write_bytes(b"t")
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
        timing_cache=cache,
    )
    with files_of_at_most(3):
        assert plan_from_graph(trt, request)
    assert "timings of kernels are not kept" in caplog.text and "File too large" in caplog.text
    assert cache.read_bytes() == b"t" and list(cache.parent.iterdir()) == [cache]


@pytest.mark.parametrize("how", ["refused", "interrupted"])
def test_a_build_that_fails_keeps_its_timings_whole(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path, how: str
) -> None:
    bundle, cache = graphs.write(), tmp_path / "folder" / "cache.timing"
    trt.refuses, trt.interrupted = "no implementation", how == "interrupted"
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
        timing_cache=cache,
    )
    # A folder that is missing is no reason to hide why the build failed.
    for _ in range(2):
        with pytest.raises((EngineOpenError, KeyboardInterrupt), match=r"no impl|^$"):
            plan_from_graph(trt, request)
        cache.parent.mkdir(exist_ok=True)
    assert cache.read_bytes() == b"timings"
    assert [file.name for file in cache.parent.iterdir()] == ["cache.timing"]


def test_the_optimization_level_reaches_the_builder_or_is_refused(
    trt: FakeTensorRT, graphs: Any
) -> None:
    bundle = graphs.write()
    for level in (None, 5):
        request = PlanRequest(
            graph_from_bundle(bundle, "labeller.onnx"),
            False,
            profiles_of(graph_inputs(bundle.manifest), (1,)),
            builder_optimization_level=level,
        )
        if level and trt.__version__.startswith("8.5"):
            with pytest.raises(EngineOpenError, match=r"level is 5; TensorRT 8.5.3.1 has none"):
                plan_from_graph(trt, request)
        else:
            plan_from_graph(trt, request)
            assert getattr(built(trt)[1], "builder_optimization_level", 3) == (level or 3)


def test_one_logger_serves_all_builds_and_plans_of_a_process(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path
) -> None:
    logger = logger_from_module(trt)
    trt.refuses = "first failure"
    bundle = graphs.write()
    with pytest.raises(EngineOpenError, match="first failure"):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path))
    trt.refuses = ""
    plan_for_bundle(bundle, trt, trt.device, options(tmp_path))
    assert trt.loggers and all(log is logger for log in trt.loggers)
    assert logger.last_error == "TensorRT gave no reason", "an earlier failure explains nothing"


def test_half_precision_that_the_graph_does_not_have_is_an_error(graphs: Any) -> None:
    trt, bundle = FakeTensorRT("8.5.3.1", FakeDevice()), graphs.write()
    # It casts two outputs at its end, and computes in float32.
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        True,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
    )
    with pytest.raises(EngineOpenError, match="has no layer that does"):
        plan_from_graph(trt, request)


def test_what_tensorrt_refuses_is_said_in_one_line(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path
) -> None:
    bundle = graphs.write()
    trt.refuses = "Could not find\nany implementation"
    request = PlanRequest(
        graph_from_bundle(bundle, "labeller.onnx"),
        False,
        profiles_of(graph_inputs(bundle.manifest), (1,)),
    )
    with pytest.raises(EngineOpenError, match=r"cannot build .*Could not find any impl"):
        plan_from_graph(trt, request)
    nonsense = OnnxGraph(tmp_path / "nonsense.onnx", b"\x08\x01")
    with pytest.raises(EngineOpenError, match=r"cannot parse .*no such model"):
        plan_from_graph(trt, PlanRequest(nonsense, False, ()))
    trt.has_gpu = False
    with pytest.raises(RuntimeMissing, match="cannot build here: no GPU"):
        plan_from_graph(trt, request)


def test_an_engine_is_built_once_and_found_again(
    trt: FakeTensorRT, graphs: Any, tmp_path: Path
) -> None:
    bundle = graphs.write()
    with pytest.raises(PlanMissing, match="--build-engine"):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path, build=False))
    first = plan_for_bundle(bundle, trt, trt.device, options(tmp_path, 2, 4))
    assert len(trt.built) == 1
    assert plan_for_bundle(bundle, trt, trt.device, options(tmp_path, 4, build=False)) == first
    assert len(trt.built) == 1
    with pytest.raises(PlanError, match="built for batches of 2, 4, not of 8"):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path, 8, build=False))
    plan_for_bundle(bundle, trt, trt.device, options(tmp_path, 8))
    plan_for_bundle(bundle, trt, trt.device, options(tmp_path, 8, force=True))
    assert len(trt.built) == 3
    trt.device.assert_nothing_left()


def test_a_full_cache_disk_loses_the_engine_but_not_the_service(
    graphs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt = FakeTensorRT("10.3.0", FakeDevice())
    bundle = graphs.write()
    kept = plan_for_bundle(bundle, trt, trt.device, options(tmp_path / "kept"))
    with files_of_at_most(0):
        with pytest.raises(EngineOpenError, match="cannot be written"):
            plan_for_bundle(bundle, trt, trt.device, options(tmp_path / "full"))
        served = plan_for_bundle(bundle, trt, trt.device, options(tmp_path / "full", unkept=True))
    assert served[0] == kept[0]
    (warning,) = [r.message for r in caplog.records if r.name == "engines.plan_build"]
    assert "cannot be written" in warning and "used from memory" in warning
    assert not list((tmp_path / "full").rglob("*.plan"))
    with pytest.raises(PlanMissing):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path / "full", build=False))


def test_a_cache_folder_that_cannot_be_made_does_not_stop_the_service(
    graphs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a disk that is full to the last block. (A folder cannot be made in a file either.)"""
    trt = FakeTensorRT("10.3.0", FakeDevice())
    bundle, cache = graphs.write(), tmp_path / "file" / "cache"
    cache.parent.write_text("")
    with pytest.raises(EngineOpenError, match="cannot be written"):
        plan_for_bundle(bundle, trt, trt.device, options(cache))
    assert plan_for_bundle(bundle, trt, trt.device, options(cache, unkept=True))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert any("give another --engine-cache" in warning for warning in warnings)


def test_a_spoilt_engine_is_built_again_where_that_is_allowed(graphs: Any, tmp_path: Path) -> None:
    trt = FakeTensorRT("10.3.0", FakeDevice())
    bundle = graphs.write()
    plan_for_bundle(bundle, trt, trt.device, options(tmp_path))
    key = key_of(bundle.manifest.bundle_id, trt.device, trt.__version__, "float32")
    plan_path(tmp_path, key).write_bytes(b"code of somebody else")
    before = trt.deserialized
    with pytest.raises(PlanError):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path, build=False))
    assert trt.deserialized == before, "nothing of it reached TensorRT"
    plan_for_bundle(bundle, trt, trt.device, options(tmp_path))
    assert len(trt.built) == 2


def test_parity_is_recorded_for_every_batch_size(graphs: Any, tmp_path: Path) -> None:
    trt = FakeTensorRT("10.3.0", FakeDevice())
    bundle = graphs.write()
    device: Device = trt.device
    plan_for_bundle(bundle, trt, device, options(tmp_path, 2, 4))
    key = key_of(bundle.manifest.bundle_id, device, trt.__version__, "float32")
    sidecar = read_sidecar(plan_path(tmp_path, key))
    assert [p.batch_size for p in sidecar.parity] == sidecar.batch_sizes == [2, 4]
    assert all(p.mask_mismatch_share == 0 and p.samples == 8 for p in sidecar.parity)


@pytest.mark.parametrize("output", ["image", "mask", "uncertainty", "keypoints", "depth"])
def test_an_engine_that_differs_is_never_kept(graphs: Any, tmp_path: Path, output: str) -> None:
    trt = FakeTensorRT("10.3.0", FakeDevice())

    def spoil(name: str, array: NDArray[Any]) -> None:
        if name == output:
            array += array.dtype.type(3)

    trt.spoil = spoil
    bundle = graphs.write()
    with pytest.raises(PlanDiffers, match=rf"{output}\w* is .* is not kept"):
        plan_for_bundle(bundle, trt, trt.device, options(tmp_path / "cache"))
    left = {file.suffix for file in (tmp_path / "cache").rglob("*.*")}
    assert left <= {".lock", ".timing"}
    trt.device.assert_nothing_left()


def parity(**changes: Any) -> PlanParity:
    good: dict[str, Any] = dict.fromkeys(
        ("image_max_steps", "mask_mismatch_share", "uncertainty_max_excess",
         "keypoints_p95_px", "depth_max_relative"), 0
    )  # fmt: skip
    good |= {"reference": "r", "batch_size": 1, "samples": 1, "image_share_within_1": 1.0}
    return PlanParity(**(good | changes))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_limit_is_enforced_and_a_nan_passes_none(precision: Any) -> None:
    refuse_difference(parity(), precision)
    for name in TOLERANCES[precision].__dataclass_fields__:
        limit = getattr(TOLERANCES[precision], name)
        refuse_difference(parity(**{name: limit}), precision)
        beyond = limit * 0.99 if name == "image_share_within_1" else limit * 1.01 + 1e-9
        for value in (beyond, float("nan")):
            with pytest.raises(PlanDiffers, match=name):
                refuse_difference(parity(**{name: value}), precision)


def test_a_flat_depth_map_is_no_difference() -> None:
    arrays: Arrays = {
        "image": np.zeros((2, 4, 4, 3), np.uint8),
        "depth": np.zeros((2, 4, 4), np.float16),
    }
    found = parity_of_arrays("r", arrays, arrays, 2, ())
    assert found.depth_max_relative == 0 and found.mask_mismatch_share is None
