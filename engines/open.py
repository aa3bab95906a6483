"""A bundle and options -> engines, or the mapping; the one place that picks a runtime."""

import logging
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from bundle.errors import BundleError
from bundle.open import Bundle
from engines.errors import EngineError, EngineOpenError
from engines.fake import FakeEngine, FakeMapping, FakeOptions
from engines.open_gpu import GpuOptions, GpuRequest, Machine, open_onnxruntime, open_tensorrt
from engines.ort import OrtEngine, OrtMapping
from engines.ort_launch import CUDA, TENSORRT, Provider
from engines.plan_parity import Precision
from engines.protocol import Engine, Mapping

__all__ = [
    "EngineOptions", "Fallback", "GpuOptions", "Machine", "OpenedEngines", "Precision", "Runtime",
    "open_engine", "open_engines", "open_mapping",
]  # fmt: skip

Runtime = Literal[
    "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-fused", "fake"
]  # fmt: skip
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PROVIDERS: dict[Runtime, Provider] = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """Which runtime runs a bundle, and how."""

    runtime: Runtime = "onnxruntime"
    fallbacks: tuple[Runtime, ...] = ()  # tried in this order where the one before cannot be had
    precision: Precision | None = None  # None: float16 on a GPU where the bundle has it
    batch_sizes: tuple[int, ...] = ()  # ascending; empty: the runtime's own choice
    threads: int = 0  # of one run; 0: one per core this process may use
    fake: FakeOptions | None = None  # how the fake one behaves; None: instantly
    gpu: GpuOptions = field(default_factory=GpuOptions)


@dataclass(frozen=True)
class Fallback:
    """A runtime that was asked for and could not be had."""

    runtime: Runtime
    reason: str


@dataclass(frozen=True)
class OpenedEngines:
    """Engines of one runtime, all alike, and what was tried before it."""

    engines: tuple[Engine, ...]
    runtime: Runtime
    fallbacks: tuple[Fallback, ...] = ()


def open_engines(
    bundle: Bundle, options: EngineOptions, machine: Machine | None = None
) -> OpenedEngines:
    """Loads the served graph by the first runtime that can; nothing but what the options list is
    tried. Raises the last one's EngineError or BundleError."""
    failed: list[Fallback] = []
    listed = (options.runtime, *options.fallbacks)
    for runtime in listed:
        one = replace(options, runtime=runtime, fallbacks=())
        try:
            return OpenedEngines(_opened(bundle, one, machine or Machine()), runtime, tuple(failed))
        except (EngineError, BundleError) as error:
            if runtime == listed[-1]:
                raise
            _log.warning("engine %s cannot be had, falling back: %s", runtime, error)
            failed.append(Fallback(runtime, str(error)))
    raise AssertionError("unreachable: the last failure is raised")


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """A single engine. Raises EngineOpenError, BundleError."""
    alone = replace(options.gpu, devices=options.gpu.devices[:1], contexts=1)
    return open_engines(bundle, replace(options, gpu=alone)).engines[0]


def open_mapping(bundle: Bundle, options: EngineOptions) -> Mapping:
    """Loads the mapping network; always on the CPU. Raises EngineOpenError, BundleError."""
    if options.runtime == "fake":
        return FakeMapping(bundle.manifest.generator)
    return OrtMapping(bundle)


def _opened(bundle: Bundle, options: EngineOptions, machine: Machine) -> tuple[Engine, ...]:
    if options.runtime == "fake":
        fake = options.fake or FakeOptions()
        return (FakeEngine(bundle.manifest, fake, options.batch_sizes),)
    if options.runtime == "onnxruntime":
        precision = options.precision or "float32"
        return (OrtEngine(bundle, precision, options.batch_sizes, options.threads),)
    request = GpuRequest(bundle, options.precision, options.batch_sizes, options.gpu)
    if options.runtime in ("tensorrt", "tensorrt-fused"):
        return open_tensorrt(request, machine, fused=options.runtime == "tensorrt-fused")
    if options.runtime in PROVIDERS:
        return open_onnxruntime(request, machine, PROVIDERS[options.runtime])
    raise EngineOpenError(f"runtime is {options.runtime!r}; it is one of {', '.join(RUNTIMES)}")
