"""A bundle -> a checked plan in the cache: found there, or built, compared and put there."""

import logging
import time
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.device import Device
from engines.device_engine import DeviceEngine
from engines.engine_cache import (
    EngineKey,
    Sidecar,
    building,
    key_of,
    plan_path,
    read_plan,
    write_plan,
)
from engines.errors import PlanError, PlanMissing
from engines.ort import OrtEngine, OrtMapping
from engines.plan_parity import (
    PlanParity,
    Precision,
    parity_of_arrays,
    parity_rows,
    refuse_difference,
    unfiltered_arrays,
)
from engines.tensorrt_build import PlanRequest, plan_from_graph, profiles_of
from engines.tensorrt_launch import TensorRTLauncher
from engines.tensorrt_module import version_of
from engines.tensorrt_plan import TensorRTPlan

PARITY_SAMPLES = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanOptions:
    """Which plan is wanted, and where it is kept."""

    cache: Path
    precision: Precision
    batch_sizes: tuple[int, ...]  # at least these
    build: bool = False  # what is not there, or is no good
    force: bool = False  # build in any case
    parity_samples: int = PARITY_SAMPLES


def plan_for_bundle(
    bundle: Bundle, trt: Any, device: Device, options: PlanOptions
) -> tuple[bytes, Sidecar]:
    """The plan and its description. Raises PlanMissing, PlanError, or what building raises."""
    key = key_of(bundle.manifest.bundle_id, device, version_of(trt), options.precision)
    path = plan_path(options.cache, key)
    if not options.force:
        try:
            return _found(path, key, options)
        except (PlanMissing, PlanError) as error:
            if not options.build:
                raise
            _log.info("%s", error)
    with building(path):
        if not options.force:
            try:
                return _found(path, key, options)  # another process built it meanwhile
            except (PlanMissing, PlanError):
                pass
        return _built(bundle, trt, device, path, options)


def _found(path: Path, key: EngineKey, options: PlanOptions) -> tuple[bytes, Sidecar]:
    data, sidecar = read_plan(path, key)
    missing = set(options.batch_sizes) - set(sidecar.batch_sizes)
    if missing:
        raise PlanError(
            f"{path} was built for batches of {_words(sidecar.batch_sizes)}, not of "
            f"{_words(sorted(missing))}; build it again with those"
        )
    return data, sidecar


def _built(
    bundle: Bundle, trt: Any, device: Device, path: Path, options: PlanOptions
) -> tuple[bytes, Sidecar]:
    began = time.monotonic()
    _log.info("building %s, which takes minutes", path)
    request = PlanRequest(
        graph=bundle.file(LABELLER[options.precision]),
        half=options.precision == "float16",
        profiles=profiles_of(bundle.manifest, options.batch_sizes),
        timing_cache=path.with_suffix(".timing"),
    )
    device.use()
    data = plan_from_graph(trt, request)
    seconds = time.monotonic() - began
    parity = _checked_parity(bundle, trt, device, data, options)
    sidecar = Sidecar(
        bundle_id=bundle.manifest.bundle_id,
        gpu=device.name,
        capability=device.capability,
        tensorrt=version_of(trt),
        precision=options.precision,
        batch_sizes=list(options.batch_sizes),
        size=len(data),
        sha256=sha256(data).hexdigest(),
        parity=parity,
        build_seconds=round(seconds, 1),
    )
    write_plan(path, data, sidecar)
    return data, sidecar


def _checked_parity(
    bundle: Bundle, trt: Any, device: Device, data: bytes, options: PlanOptions
) -> list[PlanParity]:
    """Each batch size against the float32 graph on the CPU. Raises PlanDiffers."""
    rows = parity_rows(OrtMapping(bundle), bundle.manifest.generator, options.parity_samples)
    reference = OrtEngine(bundle)
    expected = unfiltered_arrays(reference, rows)
    plan = TensorRTPlan(trt, data, bundle.manifest, device)
    parities = []
    for size in options.batch_sizes:
        launcher = partial(TensorRTLauncher, plan, batch_sizes=(size,), graphs=True)
        engine = DeviceEngine(bundle.manifest, options.precision, (size,), device, launcher)
        try:
            found = unfiltered_arrays(engine, rows)
        finally:
            engine.close()
        parities.append(parity_of_arrays(reference.name, expected, found, size))
        refuse_difference(parities[-1], options.precision)
    return parities


def _words(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
