"""A bundle's graphs -> TensorRT plans from the cache, or newly built, compared with ONNX Runtime
and written to the cache."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bundle.open import Bundle
from engines.content import content_columns
from engines.device import Device
from engines.device_engine import DeviceEngine
from engines.engine_cache import (
    EngineKey,
    Sidecar,
    build_lock,
    key_of,
    plan_path,
    read_plan,
    write_plan,
)
from engines.errors import EngineOpenError, PlanError, PlanMissing
from engines.onnx_graph import graph_from_bundle
from engines.ort import OrtMapping, open_ort_engine
from engines.plan_parity import (
    PlanParity,
    parity_of_arrays,
    parity_rows,
    refuse_difference,
    unfiltered_arrays,
)
from engines.plan_variant import PlanGraph, Plans, Variant
from engines.tensorrt_build import PlanRequest, plan_from_graph, profiles_of
from engines.tensorrt_module import version_of
from engines.tensorrt_plan import TensorRTPlan

PARITY_SAMPLES = 16
CachedPlan = tuple[bytes, Sidecar]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanOptions:
    """Where plans are kept, and when they are built."""

    cache: Path
    batch_sizes: tuple[int, ...]  # a plan must have been built for these, maybe for more
    build: bool = False  # whether to build a plan that is missing or cannot be used
    force: bool = False  # whether to build even if there is a usable plan
    parity_samples: int = PARITY_SAMPLES  # samples compared with ONNX Runtime
    builder_optimization_level: int | None = None  # 0 to 5; None: TensorRT's default, 3
    # Whether a plan that is built and cannot be written is used all the same, as of a full disk.
    unkept: bool = False


def plans_for_bundle(
    bundle: Bundle, trt: Any, device: Device, variant: Variant, options: PlanOptions
) -> tuple[CachedPlan, ...]:
    """One plan for each graph of the variant.

    Raises PlanMissing or PlanError if building is not allowed, else EngineError if it fails, or if
    the cache cannot be written.
    """
    keys = [
        key_of(bundle.manifest.bundle_id, device, version_of(trt), variant.precision, graph.name)
        for graph in variant.graphs
    ]
    if not options.force:
        try:
            return _cached_plans(keys, options)
        except (PlanMissing, PlanError) as error:
            if not options.build:
                raise
            _log.info("%s", error)
    with ExitStack() as stack:
        try:
            stack.enter_context(build_lock(plan_path(options.cache, keys[0])))
        except EngineOpenError as error:  # such as of a disk without space for a folder
            if not options.unkept:
                raise
            _log.warning("%s; the engine is built at each start meanwhile", error)
        if not options.force:
            try:
                return _cached_plans(keys, options)  # another process built them meanwhile
            except (PlanMissing, PlanError):
                pass
        return _built_plans(bundle, trt, device, variant, keys, options)


def open_plans(trt: Any, variant: Variant, data: tuple[bytes, ...], device: Device) -> Plans:
    """Deserializes one plan for each graph. Raises PlanError, RuntimeMissing, DeviceLost."""
    return tuple(
        TensorRTPlan(trt, plan, graph.inputs, graph.outputs, device)
        for plan, graph in zip(data, variant.graphs, strict=True)
    )


def _cached_plans(keys: list[EngineKey], options: PlanOptions) -> tuple[CachedPlan, ...]:
    """Raises PlanMissing, PlanError."""
    plans = []
    for key in keys:
        path = plan_path(options.cache, key)
        data, sidecar = read_plan(path, key)
        missing = set(options.batch_sizes) - set(sidecar.batch_sizes)
        if missing:
            raise PlanError(
                f"{path} was built for batches of {_joined(sidecar.batch_sizes)}, not of "
                f"{_joined(sorted(missing))}; build it again with those"
            )
        plans.append((data, sidecar))
    return tuple(plans)


def _built_plans(
    bundle: Bundle,
    trt: Any,
    device: Device,
    variant: Variant,
    keys: list[EngineKey],
    options: PlanOptions,
) -> tuple[CachedPlan, ...]:
    paths = [plan_path(options.cache, key) for key in keys]
    device.use()
    plans = [
        _built_plan(trt, bundle, graph, path, options)
        for graph, path in zip(variant.graphs, paths, strict=True)
    ]
    parity = _checked_parity(bundle, trt, device, variant, tuple(d for d, _ in plans), options)
    built = []
    for (data, seconds), key, path in zip(plans, keys, paths, strict=True):
        sidecar = Sidecar(
            bundle_id=key.bundle_id,
            gpu=key.gpu,
            capability=key.capability,
            tensorrt=key.tensorrt,
            precision=key.precision,
            graph=key.graph,
            batch_sizes=list(options.batch_sizes),
            size=len(data),
            sha256=sha256(data).hexdigest(),
            parity=parity,
            build_seconds=round(seconds, 1),
        )
        try:
            write_plan(path, data, sidecar)
        except EngineOpenError as error:
            if not options.unkept:
                raise
            _log.warning("%s; it is used from memory, and built again at the next start", error)
        built.append((data, sidecar))
    return tuple(built)


def _built_plan(
    trt: Any, bundle: Bundle, graph: PlanGraph, path: Path, options: PlanOptions
) -> tuple[bytes, float]:
    """The plan and the seconds that building took."""
    began = time.monotonic()
    _log.info("building %s, which takes minutes", path)
    request = PlanRequest(
        graph=graph_from_bundle(bundle, graph.file.name),
        half=graph.half,
        profiles=profiles_of(graph.inputs, options.batch_sizes),
        timing_cache=path.with_suffix(".timing"),
        builder_optimization_level=options.builder_optimization_level,
    )
    return plan_from_graph(trt, request), time.monotonic() - began


def _checked_parity(
    bundle: Bundle,
    trt: Any,
    device: Device,
    variant: Variant,
    data: tuple[bytes, ...],
    options: PlanOptions,
) -> list[PlanParity]:
    """Compares every batch size with the float32 graph on the CPU. Raises PlanDiffers."""
    rows = parity_rows(OrtMapping(bundle), bundle.manifest.generator, options.parity_samples)
    reference = open_ort_engine(bundle)
    expected = unfiltered_arrays(reference, rows)
    plans = open_plans(trt, variant, data, device)
    parities, columns = [], content_columns(bundle.manifest)
    for size in options.batch_sizes:
        launcher = variant.opener(plans, (size,), graphs=True)
        engine = DeviceEngine(bundle.manifest, variant.precision, (size,), device, launcher)
        try:
            found = unfiltered_arrays(engine, rows)
        finally:
            engine.close()
        parities.append(parity_of_arrays(reference.name, expected, found, size, columns))
        refuse_difference(parities[-1], variant.precision)
    return parities


def _joined(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
