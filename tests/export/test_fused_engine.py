"""The fused labeller, exported and compiled by the command, on a device that interprets its
kernels and a TensorRT whose plans ONNX Runtime runs."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bundle import Bundle, open_bundle
from bundle.errors import FileError
from bundle.fused import FUSED, Binary, Fused, Kernel, Pointer, binaries_file, fused_from_bytes
from bundle.open import file_entry
from bundle.write import write_manifest
from engines import EngineOptions, open_engines
from engines.content import array_from_region, content_columns, predicate_of_bundle
from engines.device_engine import DeviceEngine
from engines.errors import EngineOpenError, OutOfDeviceMemory, PlanDiffers
from engines.open_gpu import GpuDrivers, GpuOptions
from engines.ort import OrtMapping, open_ort_engine
from engines.plan_build import CachedPlan, PlanOptions, plans_for_bundle
from engines.plan_parity import parity_of_arrays, parity_rows, unfiltered_arrays
from engines.plan_variant import fused_variant
from export.__main__ import main as export_command
from export.bundle_from_weights import manifest_from_folder, write_graphs
from export.errors import ExportError
from export.fused.bundle import write_fused_labeller
from export.fused.compile import CompiledKernel, PtxasReport
from export.fused.launches import Tuning
from export.weights import WeightFiles, weights_from_files
from nets.config import GeneratorConfig
from tests.conftest import write_tiny_weights
from tests.engines.fake_tensorrt import FakeTensorRT
from tests.export.kernel_device import KernelDevice

pytestmark = pytest.mark.long

CONFIG = GeneratorConfig(64, (16, 16, 12, 8, 8), z_dim=8, w_dim=12, mapping_layers=2)


@pytest.fixture(scope="module")
def fused_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A fused bundle with the kernels' names in place of machine code.

    Tiles are large, because the interpreter's time grows with their number.
    """
    folder = tmp_path_factory.mktemp("fused")
    generator, interpreter = write_tiny_weights(folder, config=CONFIG)
    weights = weights_from_files(WeightFiles(generator, None, interpreter, None, None))
    out = folder / "bundle"
    out.mkdir()
    write_graphs(out, weights, half=True)
    tuning = Tuning(squares=(4, 4), band_tiles=2)
    write_fused_labeller(out, weights, ["8.0", "9.0"], (tuning,), named)
    write_manifest(out, manifest_from_folder(out, weights))
    return open_bundle(out)


def fused_of(folder: Path) -> Fused:
    return fused_from_bytes((folder / FUSED).read_bytes(), folder / FUSED)


def named(kernels: dict[str, Kernel], capability: str) -> dict[str, CompiledKernel]:
    """A compiler whose machine code is the kernel's name."""
    binary = Binary(threads=256, shared=1 << 15, hidden=2)
    report = PtxasReport(registers=128, spilled_bytes=0)
    return {n: CompiledKernel(np.frombuffer(n.encode(), np.uint8), binary, report) for n in kernels}


class Bench:
    """A fake device and TensorRT for one bundle."""

    def __init__(self, bundle: Bundle, cache: Path, version: str = "10.3.0", **given: Any) -> None:
        self.bundle, self.cache = bundle, cache
        self.device = KernelDevice(fused_of(bundle.path), **given)
        self.trt = FakeTensorRT(version, self.device)
        self.drivers = GpuDrivers(lambda index: self.device, lambda: self.trt)

    def build(self, sizes: tuple[int, ...] = (2,)) -> tuple[CachedPlan, ...]:
        variant = fused_variant(self.bundle, "float16", self.device)
        options = PlanOptions(self.cache, sizes, build=True, parity_samples=2)
        return plans_for_bundle(self.bundle, self.trt, self.device, variant, options)

    def open(self, sizes: tuple[int, ...] = (2,)) -> DeviceEngine:
        self.build(sizes)
        gpu = GpuOptions(contexts=1, cache=self.cache)
        options = EngineOptions("tensorrt-fused", batch_sizes=sizes, gpu=gpu)
        (engine,) = open_engines(self.bundle, options, self.drivers).engines
        assert isinstance(engine, DeviceEngine)
        self.device.sealed = True
        return engine


def rows_of(bundle: Bundle, count: int) -> Any:
    return parity_rows(OrtMapping(bundle), bundle.manifest.generator, count)


def test_the_fused_engine_gives_what_the_labeller_gives(
    fused_bundle: Bundle, tmp_path: Path
) -> None:
    bench = Bench(fused_bundle, tmp_path, "8.5.3.1")
    engine = bench.open()
    ws = rows_of(fused_bundle, 3)
    found = unfiltered_arrays(engine, ws)  # a whole batch, and one row with padding
    expected = unfiltered_arrays(open_ort_engine(fused_bundle), ws)
    parity = parity_of_arrays("", expected, found, 2, content_columns(fused_bundle.manifest))
    assert parity.mask_mismatch_share is not None and parity.mask_mismatch_share < 5e-3
    assert parity.keypoints_p95_px is not None and parity.keypoints_p95_px < 0.1
    assert np.abs(found["uncertainty"] - expected["uncertainty"]).max() < 2e-3
    assert parity.image_max_steps <= 2
    # A threshold between two scores: the kept row comes first, and is the same as without.
    limits = np.full(2, expected["uncertainty"][:2].mean(), np.float32)
    kept = engine.run(ws[:2], limits, engine.outputs)
    (row,) = kept.sample
    assert row == expected["uncertainty"][:2].argmin()
    for name, array in kept.arrays.items():
        np.testing.assert_array_equal(array[0], found[name][row], err_msg=name)
    # A predicate that one sample meets, by content that agrees with its labels.
    assert parity.content_excess is not None and parity.content_excess < 1
    peaks = found["keypoints"][:, 0, 2]
    heads = fused_bundle.manifest.heads
    assert heads is not None and heads.keypoints is not None
    name = heads.keypoints.names[0]
    middle = float(np.float32(peaks.max()))
    where = predicate_of_bundle(f"confidence('{name}') >= {middle!r}", fused_bundle.manifest)
    columns = len(content_columns(fused_bundle.manifest))
    bounds = array_from_region(where.region, heads.boxes, columns)
    boxes = np.repeat(bounds[None], 2, axis=0)
    pair = [peaks.argmax(), peaks.argmin()]
    met = engine.run(ws[pair], np.full(2, np.inf, np.float32), ("mask",), boxes)
    assert met.sample.tolist() == [0]
    assert engine.name == "tensorrt-8.5.3.1-fused-float16"
    engine.close()
    bench.device.assert_nothing_left()


def test_both_plans_are_kept_with_the_parity_of_the_whole(
    fused_bundle: Bundle, tmp_path: Path
) -> None:
    (_, taps), (_, finish) = Bench(fused_bundle, tmp_path).build()
    assert (taps.graph, finish.graph) == ("taps", "filter")
    assert taps.parity == finish.parity and [p.batch_size for p in taps.parity] == [2]
    again = Bench(fused_bundle, tmp_path)
    again.build()
    assert not again.trt.built
    assert len(list(tmp_path.rglob("*.plan"))) == 2


def test_kernels_that_label_wrongly_are_never_kept(fused_bundle: Bundle, tmp_path: Path) -> None:
    bench = Bench(fused_bundle, tmp_path)
    bench.device.idle = "project_rows"  # the tables stay as they were allocated
    with pytest.raises(PlanDiffers):
        bench.build()
    assert not list(tmp_path.rglob("*.plan"))
    bench.device.assert_nothing_left()


def test_a_failed_allocation_in_the_middle_gives_everything_back(
    fused_bundle: Bundle, tmp_path: Path
) -> None:
    bench = Bench(fused_bundle, tmp_path)
    bench.device.faults["load_kernel"] = OutOfDeviceMemory("as the test wants it")
    with pytest.raises(OutOfDeviceMemory):
        bench.build()
    bench.device.assert_nothing_left()


@pytest.mark.parametrize(
    ("capability", "words"),
    [((8, 9), ""), ((9, 1), "--fused 9.1"), ((12, 0), "8.0, 9.0; .* has 12.0")],
)
def test_code_for_another_gpu_is_refused_unless_it_runs_there(
    fused_bundle: Bundle, tmp_path: Path, capability: tuple[int, int], words: str
) -> None:
    bench = Bench(fused_bundle, tmp_path, capability=capability)
    if not words:
        assert fused_variant(fused_bundle, "float16", bench.device).graphs
        return
    with pytest.raises(EngineOpenError, match=words):
        fused_variant(fused_bundle, "float16", bench.device)


def test_what_the_kernels_cannot_do_says_what_can(
    fused_bundle: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    device = Bench(fused_bundle, tmp_path).device
    with pytest.raises(EngineOpenError, match=r"export it again with `--fused 9\.0`"):
        fused_variant(open_bundle(tiny_bundle), "float16", device)
    with pytest.raises(EngineOpenError, match="float32; fused kernels compute in float16"):
        fused_variant(fused_bundle, "float32", device)


@pytest.mark.parametrize("file", ["fused.npz", "fused.sm90.npz", "fused.json"])
def test_a_spoilt_file_is_refused_by_name(fused_bundle: Bundle, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(fused_bundle.path, copy)
    bundle = open_bundle(copy, verify=False)
    bench = Bench(bundle, tmp_path / "cache")
    (copy / file).write_bytes(b"PK\x03\x04 nothing")
    files = {**bundle.manifest.files, file: file_entry(copy / file)}
    bench.bundle = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, files=files))
    with pytest.raises((EngineOpenError, FileError), match=rf"{file}.* export (the bundle )?again"):
        bench.build()
    bench.device.assert_nothing_left()


def export(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in its own process, because Triton either compiles or interprets."""
    generator, interpreter = write_tiny_weights(folder, config=CONFIG)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "export", "bundle", "--generator", str(generator)),
            *("--interpreter", str(interpreter), "--out", str(folder / "bundle")),
            *("--parity-samples", "1", *more),
        ],
        env=environment | {"TRITON_CACHE_DIR": str(folder / "triton")},
        capture_output=True,
        text=True,
    )


def test_the_command_compiles_machine_code_of_the_named_kernels(tmp_path: Path) -> None:
    done = export(tmp_path, "--fused", "9.0", "--no-half")
    assert done.returncode == 0, done.stderr
    assert "kernels for compute capability 9.0 (triton " in done.stdout
    bundle = open_bundle(tmp_path / "bundle")
    fused = fused_of(bundle.path)
    (program,) = fused.programs.values()
    with np.load(bundle.file(binaries_file("9.0"))) as stored:
        for name, kernel in program.kernels.items():
            code, binary = stored[name].tobytes(), program.binaries[name]
            assert code.startswith(b"\x7fELF") and kernel.entry.encode() in code
            assert 0 < binary.shared <= 227 << 10 and binary.hidden >= 0


def test_a_gpu_of_little_memory_gets_the_first_shape_that_fits(
    tmp_path: Path,
) -> None:
    generator, interpreter = write_tiny_weights(tmp_path, config=CONFIG)
    weights = weights_from_files(WeightFiles(generator, None, interpreter, None, None))

    def roomy(kernels: dict[str, Kernel], capability: str) -> dict[str, CompiledKernel] | None:
        fits = capability == "9.0" or kernels["label_pixels-2"].constants["CHUNK"] == 8
        return named(kernels, capability) if fits else None

    shapes = (Tuning(squares=(2, 4)), Tuning(squares=(1, 4), chunk=8))
    write_fused_labeller(tmp_path, weights, ["9.0", "8.9"], shapes, roomy)
    fused = fused_of(tmp_path)
    tiles = {c: p.launches[-1].arguments[4] for c, p in fused.programs.items()}
    assert tiles == {"9.0": Pointer("interpolation_16x32"), "8.9": Pointer("interpolation_8x32")}
    with pytest.raises(ExportError, match=r"8\.6 have too little shared memory"):
        write_fused_labeller(tmp_path, weights, ["8.6"], shapes[:1], roomy)


def test_a_shape_with_serialized_products_is_never_taken(tmp_path: Path) -> None:
    generator, interpreter = write_tiny_weights(tmp_path, config=CONFIG)
    weights = weights_from_files(WeightFiles(generator, None, interpreter, None, None))

    def serializing(kernels: dict[str, Kernel], capability: str) -> dict[str, CompiledKernel]:
        large = kernels["label_pixels-2"].constants["CHUNK"] == 16
        report = PtxasReport(128, spilled_bytes=0 if large else 8, serialized="C7511" * large)
        return {n: replace(k, report=report) for n, k in named(kernels, capability).items()}

    shapes = (Tuning(squares=(2, 4)), Tuning(squares=(1, 4), chunk=8))
    write_fused_labeller(tmp_path, weights, ["9.0"], shapes, serializing)
    (program,) = fused_of(tmp_path).programs.values()
    assert program.launches[-1].arguments[4] == Pointer("interpolation_8x32")
    with pytest.raises(ExportError, match=r"\w-\d \(C7511\).* 9\.0; leave it out"):
        write_fused_labeller(tmp_path, weights, ["9.0"], shapes[:1], serializing)


def test_a_shape_without_spills_comes_before_one_that_spills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, interpreter = write_tiny_weights(tmp_path, config=CONFIG)
    weights = weights_from_files(WeightFiles(generator, None, interpreter, None, None))

    def spilling(kernels: dict[str, Kernel], capability: str) -> dict[str, CompiledKernel]:
        small = kernels["label_pixels-2"].constants["CHUNK"] == 8
        spilled = {"9.0": (16, 0), "8.6": (16, 20)}[capability][small]
        report = PtxasReport(registers=255, spilled_bytes=spilled)
        return {n: replace(k, report=report) for n, k in named(kernels, capability).items()}

    shapes = (Tuning(squares=(2, 4)), Tuning(squares=(1, 4), chunk=8))
    write_fused_labeller(tmp_path, weights, ["9.0", "8.6"], shapes, spilling)
    fused = fused_of(tmp_path)
    tiles = {c: p.launches[-1].arguments[4] for c, p in fused.programs.items()}
    assert tiles == {"9.0": Pointer("interpolation_8x32"), "8.6": Pointer("interpolation_16x32")}
    told = capsys.readouterr().err
    assert "for 8.6 spill registers" in told and "label_pixels-2 16" in told
    assert "for 9.0" not in told


@pytest.mark.parametrize(
    ("fused", "labelled", "words"),
    [
        ("7.5", True, "'7.5'; the fused kernel needs one from 8.0"),
        ("90", True, "'90'"),
        ("9.0;8.0", True, "'9.0;8.0'"),
        ("9.0", True, "the label grid is 32 px; the fused kernel needs at least 64"),
        ("9.0", False, "there is no interpreter"),
    ],
)
def test_what_cannot_be_fused_is_told_before_the_export(
    tiny_weights: tuple[Path, Path], tmp_path: Path, fused: str, labelled: bool, words: str
) -> None:
    generator, interpreter = map(str, tiny_weights)
    given = ["--generator", generator, "--out", str(tmp_path / "b"), "--fused", fused]
    given += ["--interpreter", interpreter] if labelled else []
    done = CliRunner().invoke(export_command, ["bundle", *given])
    assert done.exit_code == 1 and not (tmp_path / "b").exists()
    assert done.stderr.count("\n") == 1 and words in done.stderr


def test_images_that_are_not_square_are_not_fused(tmp_path: Path) -> None:
    tall = replace(CONFIG, start=(4, 2))
    generator, interpreter = map(str, write_tiny_weights(tmp_path, config=tall))
    given = ["--generator", generator, "--interpreter", interpreter, "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(export_command, ["bundle", *given, "--fused", "9.0"])
    assert done.exit_code == 1 and not (tmp_path / "b").exists()
    assert done.stderr.count("\n") == 1
    assert "images are 32x64 pixels; the fused kernel labels square ones only" in done.stderr
