"""Portable plans: built into a bundle without a GPU, and opened only by what can run them."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bundle import Bundle, open_bundle
from bundle.errors import BundleError, FileError
from bundle.manifest import PORTABLE_PLAN, PortablePlan
from bundle.write import write_manifest
from engines import EngineOptions, open_engines
from engines.device_engine import DeviceEngine
from engines.errors import EngineOpenError, PlanError, PlanMissing, RuntimeMissing
from engines.open_gpu import GpuDrivers, GpuOptions
from engines.ort import OrtMapping, open_ort_engine
from engines.plan_parity import parity_rows, unfiltered_arrays
from export.__main__ import main
from export.engine import PortableRequest, lines_from_portable
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import RTX, FakeTensorRT

PLAN = PORTABLE_PLAN["float32"]
SIZES = (2, 4)


class Bench:
    """A copy of a bundle, a GPU and TensorRT for RTX."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.folder = folder / "bundle"
        shutil.copytree(bundle, self.folder)
        self.device = FakeDevice("NVIDIA Fake RTX", capability=(8, 9))
        self.trt = FakeTensorRT(RTX, self.device)

    @property
    def drivers(self) -> GpuDrivers:
        return GpuDrivers(lambda index: self.device, no_tensorrt, lambda: self.trt)

    @property
    def bundle(self) -> Bundle:
        return open_bundle(self.folder)

    @property
    def plan(self) -> PortablePlan:
        return self.bundle.manifest.plans[PLAN]

    def build(self, *capabilities: str, **changes: object) -> list[str]:
        request = PortableRequest(self.folder, "float32", SIZES, capabilities)
        return lines_from_portable(replace(request, **changes), self.drivers)  # type: ignore[arg-type]

    def open(self, *sizes: int, contexts: int = 1) -> tuple[DeviceEngine, ...]:
        options = EngineOptions(
            "tensorrt-rtx",
            precision="float32",
            batch_sizes=sizes or SIZES,
            gpu=GpuOptions(contexts=contexts),
        )
        engines = open_engines(self.bundle, options, self.drivers).engines
        assert all(isinstance(engine, DeviceEngine) for engine in engines)
        return engines  # type: ignore[return-value]

    def rewrite(self, **changes: object) -> None:
        """Changes the plan's record."""
        manifest = self.bundle.manifest
        plan = msgspec.structs.replace(self.plan, **changes)
        write_manifest(self.folder, msgspec.structs.replace(manifest, plans={PLAN: plan}))


def no_tensorrt() -> None:
    raise AssertionError("TensorRT proper was asked for")


@pytest.fixture
def bench(tiny_bundle: Path, tmp_path: Path) -> Bench:
    return Bench(tiny_bundle, tmp_path)


def test_a_plan_is_built_without_a_gpu_listed_and_hashed_and_the_bundle_id_stays(
    bench: Bench, tiny_bundle: Path
) -> None:
    bench.trt.has_gpu = False
    lines = bench.build()
    assert not bench.device.calls, "the device was used"
    assert bench.bundle.manifest.bundle_id == open_bundle(tiny_bundle).manifest.bundle_id
    assert bench.plan.capabilities == ["8.0", "8.6", "8.9", "12.0", "12.1"]
    assert (bench.plan.tensorrt_rtx, bench.plan.batch_sizes) == (RTX, list(SIZES))
    (built,) = bench.trt.built
    assert built.config.capabilities == ["SM80", "SM86", "SM89", "SM120", "SM121"]
    assert bench.build() == lines and len(bench.trt.built) == 1, "built again"
    bench.build("8.6", "8.9")
    bench.build("8.6", "8.9", rebuild=True)
    assert bench.plan.capabilities == ["8.6", "8.9"] and len(bench.trt.built) == 3
    (bench.folder / PLAN).write_bytes(b"code of somebody else")
    with pytest.raises(BundleError, match=rf"{PLAN} has .* bytes"):
        open_bundle(bench.folder)


def test_the_engine_gives_what_onnxruntime_gives(bench: Bench) -> None:
    bench.build()
    first, second = bench.open(contexts=2)
    assert bench.trt.deserialized == 1, "two contexts share one plan"
    assert first.name == f"tensorrt-rtx-{RTX}-float32"
    ws = parity_rows(OrtMapping(bench.bundle), bench.bundle.manifest.generator, 5)
    expected = unfiltered_arrays(open_ort_engine(bench.bundle), ws)
    for engine in (first, second):
        for name, array in unfiltered_arrays(engine, ws).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1, err_msg=name)
        engine.close()
    bench.device.assert_nothing_left()


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ((9, 0), r"8\.6, 8\.9; NVIDIA Fake RTX has 9\.0, use the engine tensorrt"),
        ((7, 5), r"has 7\.5, use the engine tensorrt"),
        ((12, 0), r"has 12\.0, build it again with --compute-capability 12\.0"),
    ],
)
def test_a_gpu_that_the_plan_is_not_for_is_refused(
    bench: Bench, capability: tuple[int, int], words: str
) -> None:
    bench.build("8.6", "8.9")
    bench.device.capability = capability
    with pytest.raises(PlanError, match=words):
        bench.open()
    assert not bench.trt.deserialized


def test_another_version_other_sizes_and_a_missing_plan_are_refused_with_the_fix(
    bench: Bench,
) -> None:
    with pytest.raises(PlanMissing, match=rf"no portable plan {PLAN}; build it with .*rtx`"):
        bench.open()
    bench.build()
    with pytest.raises(PlanError, match=r"batches of 2, 4, not of 8; build it again"):
        bench.open(2, 8)
    bench.rewrite(tensorrt_rtx="1.6.0.1")
    with pytest.raises(PlanError, match=rf"for RTX 1\.6\.0\.1, and {RTX} is installed; install"):
        bench.open()
    assert not bench.trt.deserialized
    with pytest.raises(BundleError, match=r"graph_sha256 is .*; build the plan again"):
        bench.rewrite(graph_sha256="0" * 64)


def test_a_plan_that_changed_after_the_bundle_was_opened_never_reaches_tensorrt(
    bench: Bench,
) -> None:
    bench.build()
    opened = bench.bundle
    (bench.folder / PLAN).write_bytes(b"code of somebody else")
    options = EngineOptions("tensorrt-rtx", precision="float32", batch_sizes=SIZES)
    with pytest.raises(FileError, match="copy the bundle again"):
        open_engines(opened, options, bench.drivers)
    assert not bench.trt.deserialized


def test_an_unknown_capability_and_a_failed_build_leave_the_bundle_as_it_was(
    bench: Bench,
) -> None:
    before = (bench.folder / "manifest.json").read_bytes()
    with pytest.raises(EngineOpenError, match=r"9\.0 is unknown .* builds for 7\.5, 8\.0"):
        bench.build("9.0")
    bench.trt.refuses = "FP32 GEMM is not supported"
    with pytest.raises(EngineOpenError, match="FP32 GEMM"):
        bench.build()
    assert (bench.folder / "manifest.json").read_bytes() == before
    assert not (bench.folder / PLAN).exists()


def test_a_missing_package_names_the_extra(bench: Bench) -> None:
    def missing() -> None:
        raise RuntimeMissing("TensorRT for RTX is not installed; install the extra `rtx`")

    options = EngineOptions("tensorrt-rtx", fallbacks=("onnxruntime",), batch_sizes=(2,))
    drivers = GpuDrivers(lambda index: bench.device, no_tensorrt, missing)
    opened = open_engines(bench.bundle, options, drivers)
    assert opened.runtime == "onnxruntime" and "extra `rtx`" in opened.fallbacks[0].reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runtime", "tensorrt-rtx", "--fused"], "--fused is not an option of"),
        (["--runtime", "tensorrt-rtx", "--gpu", "1"], "--gpu is not an option of"),
        (["--report"], "--report is not an option of --runtime tensorrt;"),
        (["--compute-capability", "8.9"], "--compute-capability is not an option of"),
        (["--runtime", "tensorrt-rtx", "--compute-capability", "89"], "write them as 8.6,8.9"),
    ],
)
def test_options_of_the_other_runtime_end_with_2(
    tiny_bundle: Path, arguments: list[str], words: str
) -> None:
    run = CliRunner().invoke(main, ["engine", str(tiny_bundle), *arguments])
    assert run.exit_code == 2 and words in run.output


@pytest.mark.long
def test_the_command_builds_a_real_plan_and_reports_its_layers(bench: Bench) -> None:
    line = ["engine", str(bench.folder), "--runtime", "tensorrt-rtx", "--report"]
    run = CliRunner().invoke(main, [*line, "--batch-size", "1,4", "--compute-capability", "8.9"])
    assert run.exit_code == 0, run.output
    plan = bench.bundle.manifest.plans[PORTABLE_PLAN["float16"]]
    assert plan.capabilities == ["8.9"] and plan.batch_sizes == [1, 4]
    assert re.search(r"(?m)^batch 1 .* layers after fusion \(.*Half.*working memory", run.output)
    assert re.search(r"(?m)^layer +Half +gemm +/labels/", run.output)
    assert (
        "plan         labeller.fp16.rtx.plan"
        in CliRunner().invoke(main, ["inspect", str(bench.folder)]).output
    )
    turing = CliRunner().invoke(main, [*line, "--compute-capability", "7.5"])
    assert turing.exit_code == 1 and "not supported" in turing.output, "may be a default by now"
