"""`export engine` builds, compares and describes an engine, or fails with one line."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from engines.engine_cache import read_sidecar
from engines.errors import EngineOpenError, PlanDiffers
from engines.open_gpu import GpuDrivers
from export.__main__ import main
from export.engine import EngineRequest, lines_from_request
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import VERSIONS, FakeTensorRT


def drivers(version: str) -> tuple[FakeTensorRT, GpuDrivers]:
    device = FakeDevice()
    trt = FakeTensorRT(version, device)
    return trt, GpuDrivers(lambda index: device, lambda: trt)


# tests/engines/test_plan_build.py builds in every precision with every version.
@pytest.mark.parametrize(
    ("version", "precision"),
    [
        *((version, None) for version in VERSIONS),
        (VERSIONS[0], "float32"),
        (VERSIONS[1], "float16"),
        (VERSIONS[-1], "float32"),
    ],
)
def test_a_real_bundles_engine_is_built_compared_and_described(
    tiny_bundle: Path, tmp_path: Path, version: str, precision: str | None
) -> None:
    trt, on = drivers(version)
    request = EngineRequest(tiny_bundle, tmp_path, precision, (2, 4), parity_samples=6)  # type: ignore[arg-type]
    lines = lines_from_request(request, on)
    (plan,) = tmp_path.rglob("*.plan")
    assert plan.name == f"nvidia-fake-100-sm90-{version}-{precision or 'float16'}.plan"
    assert lines[0].endswith(str(plan))
    assert [p.batch_size for p in read_sidecar(plan).parity] == [2, 4]
    assert sum(line.startswith("parity") for line in lines) == 2
    assert lines_from_request(request, on) == lines and len(trt.built) == 1
    trt.device.assert_nothing_left()


def test_the_optimization_level_reaches_the_builder(tiny_bundle: Path, tmp_path: Path) -> None:
    trt, on = drivers("10.3.0")
    request = EngineRequest(
        tiny_bundle, tmp_path, batch_sizes=(2,), parity_samples=2, builder_optimization_level=5
    )
    lines_from_request(request, on)
    assert trt.built[-1].config.builder_optimization_level == 5


def test_a_batch_size_that_makes_no_sense_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    _, on = drivers("10.3.0")
    with pytest.raises(EngineOpenError, match="ascending"):
        lines_from_request(EngineRequest(tiny_bundle, tmp_path, None, (4, 2)), on)


def test_a_wrong_engine_is_refused_with_its_figure(tiny_bundle: Path, tmp_path: Path) -> None:
    trt, on = drivers("8.5.3.1")

    def turn(name: str, array: object) -> None:
        if name == "mask":
            array[...] = 1  # type: ignore[index]

    trt.spoil = turn
    with pytest.raises(PlanDiffers, match=r"mask_mismatch_share is \S+, it must be at most 0.02"):
        lines_from_request(EngineRequest(tiny_bundle, tmp_path, parity_samples=4), on)


def test_without_tensorrt_or_a_gpu_the_command_says_so_in_one_line(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke(main, ["engine", str(tiny_bundle), "--cache", str(tmp_path)])
    if run.exit_code == 0:
        pytest.skip("this machine has TensorRT and a GPU")
    assert run.exit_code == 1
    assert re.fullmatch(r"Error: [^\n]*extra `gpu`[^\n]*\n", run.output)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "4,x"], "not a list of batch sizes"),
        (["--precision", "int8"], "'int8' is not one of"),
        (["--gpu", "-1"], "-1 is not in the range"),
        (["--builder-optimization-level", "6"], "6 is not in the range"),
    ],
)
def test_usage_errors_end_with_2(tiny_bundle: Path, arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(main, ["engine", str(tiny_bundle), *arguments])
    assert run.exit_code == 2 and words in run.output
