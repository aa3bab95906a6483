"""A bundle and EngineOptions -> engines, or the mapping network; the runtime is chosen here."""

import logging
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from bundle.errors import BundleError
from bundle.open import Bundle
from engines.errors import EngineError, EngineOpenError
from engines.fake import FakeEngine, FakeMapping, FakeOptions
from engines.open_gpu import (
    GpuDrivers,
    GpuOptions,
    GpuRequest,
    open_onnxruntime,
    open_tensorrt,
    open_tensorrt_rtx,
)
from engines.ort import OrtMapping, open_ort_engine
from engines.ort_launch import CUDA, TENSORRT, Provider
from engines.protocol import Engine, Mapping, Precision

__all__ = [
    "EngineOptions",
    "Fallback",
    "GpuDrivers",
    "GpuOptions",
    "OpenedEngines",
    "Precision",
    "Runtime",
    "open_engine",
    "open_engines",
    "open_mapping",
]  # fmt: skip

Runtime = Literal[
    "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-fused",
    "tensorrt-rtx", "fake",
]  # fmt: skip
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PROVIDERS: dict[Runtime, Provider] = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """Which runtime runs a bundle, and how."""

    runtime: Runtime = "onnxruntime"
    fallbacks: tuple[Runtime, ...] = ()  # tried in this order when the runtime cannot be opened
    precision: Precision | None = None  # None: float16 on a GPU if the bundle has it, else float32
    batch_sizes: tuple[int, ...] = ()  # ascending; empty: the runtime's default
    threads: int = 0  # CPU threads of one run; 0: one per available core
    fake: FakeOptions | None = None  # behavior of the runtime "fake"; None: runs return at once
    gpu: GpuOptions = field(default_factory=GpuOptions)


@dataclass(frozen=True)
class Fallback:
    """A runtime that was tried and could not be opened."""

    runtime: Runtime
    reason: str


@dataclass(frozen=True)
class OpenedEngines:
    """Identical engines of one runtime, and the runtimes that failed before it."""

    engines: tuple[Engine, ...]
    runtime: Runtime
    fallbacks: tuple[Fallback, ...] = ()


def open_engines(
    bundle: Bundle, options: EngineOptions, drivers: GpuDrivers | None = None
) -> OpenedEngines:
    """Loads the served graph with the first runtime of `options` that can be opened; other
    runtimes are never tried. Raises the EngineError or BundleError of the last one."""
    drivers = drivers or GpuDrivers()
    failed: list[Fallback] = []
    runtimes = (options.runtime, *options.fallbacks)
    for runtime in runtimes:
        try:
            engines = _engines_of_runtime(bundle, runtime, options, drivers)
            return OpenedEngines(engines, runtime, tuple(failed))
        except (EngineError, BundleError) as error:
            if runtime == runtimes[-1]:
                raise
            _log.warning("engine %s cannot be opened, falling back: %s", runtime, error)
            failed.append(Fallback(runtime, str(error)))
    raise AssertionError("unreachable: the last failure is raised")


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """A single engine, on the first GPU of `options`. Raises EngineError, BundleError."""
    one_context = replace(options.gpu, devices=options.gpu.devices[:1], contexts=1)
    return open_engines(bundle, replace(options, gpu=one_context)).engines[0]


def open_mapping(bundle: Bundle, options: EngineOptions) -> Mapping:
    """Loads the mapping network, always on the CPU. Raises EngineOpenError, BundleError."""
    if options.runtime == "fake":
        return FakeMapping(bundle.manifest.generator)
    return OrtMapping(bundle)


def _engines_of_runtime(
    bundle: Bundle, runtime: Runtime, options: EngineOptions, drivers: GpuDrivers
) -> tuple[Engine, ...]:
    if runtime == "fake":
        return (FakeEngine(bundle.manifest, options.fake, options.batch_sizes),)
    if runtime == "onnxruntime":
        precision = options.precision or "float32"
        return (open_ort_engine(bundle, precision, options.batch_sizes, options.threads),)
    request = GpuRequest(bundle, options.precision, options.batch_sizes, options.gpu)
    if runtime in ("tensorrt", "tensorrt-fused"):
        return open_tensorrt(request, drivers, fused=runtime == "tensorrt-fused")
    if runtime == "tensorrt-rtx":
        return open_tensorrt_rtx(request, drivers)
    if runtime in PROVIDERS:
        return open_onnxruntime(request, drivers, PROVIDERS[runtime])
    raise EngineOpenError(f"runtime is {runtime!r}; it must be one of {', '.join(RUNTIMES)}")
