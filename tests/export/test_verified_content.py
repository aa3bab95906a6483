"""On every way from a bundle's folder to a session, nothing is used that was not verified.

The corpus: the whole folder is replaced by one whose files have other content of the same size,
before and after each opening of a file in it, for good or until the next such moment. The load then
ends with the arrays of the true files, or with an error that names the hashes. The files that a
graph names are in `tests/engines/test_onnx_graph.py`.
"""

import contextlib
import filecmp
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from bundle import Bundle, BundleError, open_bundle
from bundle.fused import ARRAYS
from bundle.manifest import MANIFEST, PORTABLE_PLAN, VIEWS, Manifest
from bundle.open import read_manifest
from bundle.read import bundle_id_from_content
from bundle.views import write_view_codes
from bundle.write import file_entries, write_manifest
from engines import EngineOptions, open_engines, open_mapping
from engines.errors import EngineError
from engines.fake import fake_bundle
from engines.protocol import Engine
from engines.signature import UNCERTAINTY
from export.checks.calibration import open_score_engine
from tests.engines.device_bench import Bench as DeviceBench
from tests.export.test_fused_engine import Bench as FusedBench
from tests.export.test_fused_engine import fused_bundle
from tests.export.test_portable_plan import Bench as PortableBench

__all__ = ["fused_bundle"]

Arrays = dict[str, NDArray[Any]]
Load = Callable[[Path], Arrays]  # the bundle's folder -> what comes out


@dataclass
class Swap:
    """Replaces `true` by `false` at moment number `at`, and with `brief` restores it at the next.

    Moments are those before a file of the folder is opened, and those after, when its descriptor
    becomes a stream.
    """

    true: Path
    false: Path
    at: int
    brief: bool
    moments: list[str] = field(default_factory=list)  # files to be opened; "" after an opening
    away: bool = False  # whether the false folder is in place

    def on_open(self, path: object) -> None:
        after = isinstance(path, int)
        path = os.readlink(f"/proc/self/fd/{path}") if after else path
        if not isinstance(path, (str, Path)) or self.true not in Path(path).parents:
            return
        if len(self.moments) in (self.at, self.at + 1 if self.brief else -1):
            self._swap()
        self.moments.append("" if after else Path(path).name)

    def restore(self) -> None:
        if self.away:
            self._swap()

    def _swap(self) -> None:
        free = self.true.with_name("free")
        for source, target in ((self.true, free), (self.false, self.true), (free, self.false)):
            source.rename(target)
        self.away = not self.away


_swaps: list[Swap] = []  # under way, at most one


@contextlib.contextmanager
def swapped(swap: Swap) -> Iterator[None]:
    _swaps.append(swap)
    try:
        yield
    finally:
        _swaps.remove(swap)


def _audit(event: str, given: tuple[object, ...]) -> None:
    if event == "open" and _swaps:
        _swaps[0].on_open(given[0])


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    sys.addaudithook(_audit)  # stays until the process ends


def false_onnx(content: bytes) -> bytes:
    """The graph with the values of its large tensors halved."""
    graph = onnx.load_from_string(content).graph
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute)]
    for tensor in tensors:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            values = numpy_helper.to_array(tensor)
            if len(tensor.raw_data) >= 64 and content.count(tensor.raw_data) == 1:
                content = content.replace(tensor.raw_data, (values / 2).tobytes())
    return content


def false_content(name: str, content: bytes) -> bytes:
    """Other content of the same size that the bundle's readers take."""
    if name == MANIFEST:
        return content
    if name.endswith(".onnx"):
        return false_onnx(content)
    if name.endswith(".plan"):
        header, _, graph = content.partition(b"\n")  # of the fake TensorRT
        return header + b"\n" + false_onnx(graph)
    if name == VIEWS:
        return (np.frombuffer(content, "<f4") / 2).tobytes()
    if name == ARRAYS:
        with np.load(io.BytesIO(content)) as arrays:
            halved = {n: x / 2 if x.dtype.kind == "f" else x for n, x in arrays.items()}
        file = io.BytesIO()
        np.savez(file, **halved)
        return file.getvalue()
    return content  # machine code and its description: nothing else would be taken


def make_false(true: Path, false: Path) -> None:
    """A folder of files of the same names and sizes."""
    false.mkdir()
    for file in sorted(true.iterdir()):
        content = file.read_bytes()
        other = false_content(file.name, content)
        assert len(other) == len(content), file.name
        (false / file.name).write_bytes(other)


def arrays_of(engine: Engine, bundle: Bundle) -> Arrays:
    generator, rows = bundle.manifest.generator, engine.batch_sizes[-1]
    ws = np.random.default_rng(0).normal(size=(rows, generator.num_ws, generator.w_dim))
    keep_all = np.full(rows, np.inf, np.float32)
    arrays = engine.run(ws.astype(np.float32), keep_all, engine.outputs).arrays
    engine.close()
    return arrays


def by_onnxruntime(folder: Path) -> Arrays:
    bundle, options = open_bundle(folder), EngineOptions(batch_sizes=(2,))
    mapping = open_mapping(bundle, options)
    (engine,) = open_engines(bundle, options).engines
    z = np.ones((2, bundle.manifest.generator.z_dim), np.float32)
    return arrays_of(engine, bundle) | {"w": mapping.run(z, None)}


def by_onnxruntime_in_half(folder: Path) -> Arrays:
    bundle, options = open_bundle(folder), EngineOptions(batch_sizes=(2,), precision="float16")
    (engine,) = open_engines(bundle, options).engines
    return arrays_of(engine, bundle)


def by_tensorrt(folder: Path) -> Arrays:
    """Builds the plan and keeps it, outside the bundle."""
    cache = folder.with_name("cache")
    shutil.rmtree(cache, ignore_errors=True)
    bench, bundle = DeviceBench("10.3.0", cache), open_bundle(folder)
    return arrays_of(bench.open(bundle, (2,)), bundle)


def by_calibration(folder: Path) -> Arrays:
    bundle = open_bundle(folder)
    engine = open_score_engine(bundle, EngineOptions(batch_sizes=(2,)))
    return {UNCERTAINTY: arrays_of(engine, bundle)[UNCERTAINTY]}


def codes_of_views(folder: Path) -> Arrays:
    bundle = open_bundle(folder)
    assert bundle.views is not None
    return {"codes": bundle.views.codes}


WAYS: dict[str, tuple[Load, str]] = {  # and a file that it must use
    "onnxruntime": (by_onnxruntime, "labeller.onnx"),
    "the mapping": (by_onnxruntime, "mapping.onnx"),
    "onnxruntime in half precision": (by_onnxruntime_in_half, "labeller.fp16.onnx"),
    "tensorrt": (by_tensorrt, "labeller.fp16.onnx"),
    "calibration": (by_calibration, "labeller.onnx"),
}


def check(load: Load, true: Path, used: str, native: bool = False) -> None:
    """Loads with every swap of the corpus.

    used: a file whose content shows in the arrays. native: whether code that is not Python could
    open files; else moments after an opening are left out, and brief swaps of equal files.
    """
    false = true.with_name("false")
    make_false(true, false)
    without = Swap(true, false, at=-1, brief=False)
    with swapped(without):
        expected = load(true)
    refused = 0
    last = len(without.moments) - 1
    for at, name in enumerate(without.moments):
        if not name and not native and at < last:
            continue
        differ = name and not filecmp.cmp(true / name, false / name, shallow=False)
        for brief in (False, True) if native or differ else (False,):
            swap = Swap(true, false, at, brief)
            try:
                with swapped(swap):
                    found = load(true)
            except (BundleError, EngineError) as error:
                assert "the manifest says" in str(error) and "\n" not in str(error), error
                refused += 1
            else:
                assert same(found, expected), swap
            finally:
                swap.restore()
    assert refused > 0, "no swap came before a file was read"
    shutil.copy(false / used, true / used)
    manifest = read_manifest(true)
    (true / MANIFEST).unlink()
    list_files(true, manifest)
    with contextlib.suppress(EngineError):  # a plan of other weights than the labeller's
        assert not same(load(true), expected), "the corpus could not show what was used"


def same(found: Arrays, expected: Arrays) -> bool:
    return all(np.array_equal(found[name], array) for name, array in expected.items())


def list_files(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest with the files that the folder has."""
    tables = [c.content.name for c in manifest.calibrations if c.content is not None]
    files = {name: e for name, e in file_entries(folder).items() if name not in tables}
    plans = {
        name: msgspec.structs.replace(
            plan, file=files.pop(name), graph_sha256=files[plan.graph].sha256
        )
        for name, plan in manifest.plans.items()
    }
    bundle_id = bundle_id_from_content(
        manifest.generator, manifest.labels, manifest.heads, files, manifest.refiner, manifest.views
    )
    write_manifest(
        folder, msgspec.structs.replace(manifest, files=files, plans=plans, bundle_id=bundle_id)
    )


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.long)
        if "half" in way or way in ("tensorrt", "calibration")
        else way
        for way in WAYS
    ],
)
def test_a_session_has_the_verified_graph_whenever_files_are_swapped(
    tiny_bundle: Path, tmp_path: Path, way: str
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "true")
    load, used = WAYS[way]
    check(load, tmp_path / "true", used, native=load is not by_tensorrt)


@pytest.mark.long
def test_a_portable_plan_is_verified_whenever_files_are_swapped(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bench = PortableBench(tiny_bundle, tmp_path)
    bench.build()

    def load(folder: Path) -> Arrays:
        return arrays_of(bench.open()[0], bench.bundle)

    check(load, bench.folder, PORTABLE_PLAN["float32"])


@pytest.mark.slow
def test_fused_kernels_are_verified_whenever_files_are_swapped(
    fused_bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(fused_bundle.path, tmp_path / "true")

    def load(folder: Path) -> Arrays:
        cache = tmp_path / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        bundle = open_bundle(folder)
        return arrays_of(FusedBench(bundle, cache).open((1,)), bundle)

    check(load, tmp_path / "true", ARRAYS)


def test_a_view_bank_is_verified_whenever_files_are_swapped(tmp_path: Path) -> None:
    true, bundle = tmp_path / "true", fake_bundle(view_codes=3)
    true.mkdir()
    assert bundle.views is not None
    for name in ("labeller.onnx", "mapping.onnx"):
        (true / name).write_bytes(b"")  # a graph without nodes
    write_view_codes(true, bundle.views.codes)
    list_files(true, bundle.manifest)
    check(codes_of_views, true, VIEWS)
