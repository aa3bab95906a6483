"""Labeled samples per second end to end, cost of filtering, and server compared with bare engine.

Engines run as in the service: several contexts, each with its own thread. Weights are random, so an
engine's difference from ONNX Runtime is recorded and not enforced.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_cases import CASES, Ceilings, bound_per_s, bundle_folder
from benchmarks.gpu_results import Results
from bundle.open import Bundle, open_bundle
from engines import EngineOptions, open_engines, open_mapping
from engines.content import content_columns
from engines.cuda import open_device
from engines.device import Device
from engines.device_engine import DeviceEngine
from engines.engine_cache import Sidecar, build_lock, key_of, plan_path, read_plan, write_plan
from engines.errors import EngineError, PlanMissing
from engines.onnx_graph import graph_from_bundle
from engines.open import Runtime
from engines.open_gpu import GpuOptions
from engines.plan_build import open_plans
from engines.plan_parity import parity_of_arrays, parity_rows, unfiltered_arrays
from engines.plan_variant import Variant, variant_of
from engines.protocol import Engine
from engines.run_memory import bytes_of
from engines.signature import KEPT, SAMPLE, UNCERTAINTY, graph_outputs
from engines.tensorrt_build import PlanRequest, plan_from_graph, profiles_of
from engines.tensorrt_module import tensorrt_module, version_of

SIZES, SECONDS, PARITY_SAMPLES = (4, 16), 4.0, 4
WIRE = ("image", "mask", "uncertainty")


def main(part: str, folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    cases = [case for case in CASES if bundle_folder(folder, case).exists()]
    if not cases:
        return results.add(part, "left out", reason="there are no bundles; run the part `bundles`")
    measures: dict[str, Callable[[Results, Path, str, Runtime], None]] = {
        "rates": rates, "filter": filtering, "server": served,
    }  # fmt: skip
    chosen = cases if part == "rates" else cases[:1]
    runtimes: tuple[Runtime, ...] = ("tensorrt", "tensorrt-fused", "onnxruntime-cuda")
    for case in chosen:
        for runtime in runtimes if part == "rates" else runtimes[:1]:
            try:
                measures[part](results, folder, case, runtime)
            except EngineError as error:
                results.add(part, "left out", case=case, engine=runtime, reason=str(error)[:160])


def rates(results: Results, folder: Path, case: str, runtime: Runtime) -> None:
    """Measures batches of each size with one context and with two."""
    ceilings = _ceilings(results)
    bound = round(bound_per_s(CASES[case], ceilings)) if ceilings else ""
    for contexts in (1, 2):
        known: dict[str, Any] = {"case": case, "runtime": runtime, "contexts": contexts}
        if all(results.has("rates", batch=n, **known) for n in SIZES):
            continue
        with opened(folder, case, runtime, contexts) as (bundle, engines):
            for batch in SIZES:
                rate = samples_per_s(bundle, engines, batch, engines[0].outputs)
                results.add(
                    "rates", engine=engines[0].name, batch=batch, **known,
                    per_s=round(rate, 1), bound_per_s=bound,
                )  # fmt: skip


def filtering(results: Results, folder: Path, case: str, runtime: Runtime) -> None:
    """Measures one batch with thresholds that keep a fraction of it."""
    with opened(folder, case, runtime, 1) as (bundle, engines):
        engine, n = engines[0], SIZES[-1]
        ws = _rows(bundle, n)
        everything = np.full(n, np.inf, np.float32)
        scores = np.sort(engine.run(ws, everything, (UNCERTAINTY,)).arrays[UNCERTAINTY])
        for fraction in (1.0, 0.9, 0.5, 0.0):
            count = round(fraction * n)
            limit = scores[count - 1] if count else -np.inf
            times = []
            for _ in range(30):
                began = time.perf_counter()
                result = engine.run(ws, np.full(n, limit, np.float32), engine.outputs)
                times.append((time.perf_counter() - began) * 1e3)
            specs, kept = graph_outputs(bundle.manifest), len(result.sample)
            copied = sum(bytes_of(specs[name], n) for name in (KEPT, SAMPLE, UNCERTAINTY))
            copied += sum(bytes_of(specs[name], kept) for name in engine.outputs)
            results.add(
                "filter", case=case, keep_fraction=fraction, kept=f"{kept} of {n}",
                ms=round(statistics.median(times[5:]), 3), bytes_copied=copied,
            )  # fmt: skip


def served(results: Results, folder: Path, case: str, runtime: Runtime) -> None:
    """Measures the whole server on this GPU, and the bare engine before and after it."""
    from examples.demo.serving import server
    from labelmint import Client

    def bare() -> float:
        with opened(folder, case, runtime, 2) as (bundle, engines):
            return samples_per_s(bundle, engines, SIZES[-1], WIRE)

    before = bare()
    flags = (
        "--engine", runtime, "--engine-cache", str(folder / "engines"), "--precision", "fp16",
        "--batch-size", ",".join(map(str, SIZES)),
    )  # fmt: skip
    with (
        server(bundle_folder(folder, case), *flags) as address,
        Client(address) as client,
    ):
        stream = client.stream(batch_size=64, outputs=list(WIRE))
        next(stream)
        began, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < 2 * SECONDS:
            count += len(next(stream).indices)
    alone = (before + bare()) / 2
    results.add(
        "server", case=case, bare_per_s=round(alone, 1), served_per_s=round(count / elapsed, 1),
        ratio=round(count / elapsed / alone, 3),
    )  # fmt: skip


@contextmanager
def opened(
    folder: Path, case: str, runtime: Runtime, contexts: int
) -> Iterator[tuple[Bundle, tuple[Engine, ...]]]:
    """Opens the case's engines, and builds the plan if it is missing."""
    bundle = open_bundle(bundle_folder(folder, case), verify=False)
    if runtime in ("tensorrt", "tensorrt-fused"):
        fused = runtime == "tensorrt-fused"
        _ensure_plans(bundle, tensorrt_module(), open_device(), folder / "engines", fused)
    gpu = GpuOptions(contexts=contexts, cache=folder / "engines")
    options = EngineOptions(runtime, precision="float16", batch_sizes=SIZES, gpu=gpu)
    engines = open_engines(bundle, options).engines
    try:
        yield bundle, engines
    finally:
        for engine in engines:
            engine.close()


def samples_per_s(
    bundle: Bundle, engines: tuple[Engine, ...], batch: int, outputs: tuple[str, ...]
) -> float:
    """Runs all engines at once, each in its thread, for a few seconds after a warm-up."""
    ws, everything = _rows(bundle, batch), np.full(batch, np.inf, np.float32)

    def work(engine: Engine) -> float:
        for _ in range(3):
            engine.run(ws, everything, outputs)
        began, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < SECONDS:
            engine.run(ws, everything, outputs)
            count += batch
        return count / elapsed

    with ThreadPoolExecutor(len(engines)) as pool:
        return sum(pool.map(work, engines))


def _rows(bundle: Bundle, n: int) -> Any:
    mapping = open_mapping(bundle, EngineOptions())
    return parity_rows(mapping, bundle.manifest.generator, n)


def _ceilings(results: Results) -> Ceilings | None:
    found = {row["what"]: row["value"] for row in results.of("ceilings") if "what" in row}
    names = ("bf16 matrix product", "fp32 matrix product", "memory")
    if not all(name in found for name in names):
        return None
    tensor, other, moved = (float(found[name]) for name in names)
    return Ceilings(tensor, other, moved)


def _ensure_plans(bundle: Bundle, trt: Any, device: Device, cache: Path, fused: bool) -> None:
    variant = variant_of(bundle, "float16", device, fused)
    keys = [
        key_of(bundle.manifest.bundle_id, device, version_of(trt), "float16", graph.name)
        for graph in variant.graphs
    ]
    paths = [plan_path(cache, key) for key in keys]
    with build_lock(paths[0]):
        try:
            for path, key in zip(paths, keys, strict=True):
                read_plan(path, key)
        except PlanMissing:
            _build(bundle, trt, device, variant, paths)


def _build(bundle: Bundle, trt: Any, device: Device, variant: Variant, paths: list[Path]) -> None:
    manifest, plans = bundle.manifest, []
    for graph, path in zip(variant.graphs, paths, strict=True):
        began, profiles = time.monotonic(), profiles_of(graph.inputs, SIZES)
        onnx = graph_from_bundle(bundle, graph.file.name)
        request = PlanRequest(onnx, graph.half, profiles, path.with_suffix(".timing"))
        plans.append((plan_from_graph(trt, request), time.monotonic() - began))
    rows = parity_rows(open_mapping(bundle, EngineOptions()), manifest.generator, PARITY_SAMPLES)
    (reference,) = open_engines(bundle, EngineOptions(batch_sizes=(1,))).engines
    opened_plans = open_plans(trt, variant, tuple(data for data, _ in plans), device)
    launcher = variant.opener(opened_plans, SIZES, graphs=True)
    engine = DeviceEngine(manifest, "float16", SIZES, device, launcher)
    expected, found = unfiltered_arrays(reference, rows), unfiltered_arrays(engine, rows)
    engine.close()
    columns = content_columns(manifest)
    parity = parity_of_arrays(reference.name, expected, found, SIZES[0], columns)
    print(f"  built in {sum(seconds for _, seconds in plans):.0f} s, {parity}", flush=True)
    for (data, seconds), graph, path in zip(plans, variant.graphs, paths, strict=True):
        write_plan(
            path,
            data,
            Sidecar(
                bundle_id=manifest.bundle_id,
                gpu=device.name,
                capability=device.capability,
                tensorrt=version_of(trt),
                precision="float16",
                graph=graph.name,
                batch_sizes=list(SIZES),
                size=len(data),
                sha256=sha256(data).hexdigest(),
                parity=[parity],
                build_seconds=round(seconds, 1),
            ),
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
