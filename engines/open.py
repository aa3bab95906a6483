"""A bundle and options -> an engine, or the mapping; the one place that picks a runtime."""

from dataclasses import dataclass
from typing import Literal

from bundle.open import Bundle
from engines.errors import EngineOpenError
from engines.fake import FakeEngine, FakeMapping, FakeOptions
from engines.ort import OrtEngine, OrtMapping
from engines.protocol import Engine, Mapping

Runtime = Literal["onnxruntime", "fake"]
Precision = Literal["float32", "float16"]


@dataclass(frozen=True)
class EngineOptions:
    """Which runtime runs a bundle, and how."""

    runtime: Runtime = "onnxruntime"
    precision: Precision = "float32"
    batch_sizes: tuple[int, ...] = ()  # ascending; empty: the runtime's own choice
    threads: int = 0  # of one run; 0: one per core this process may use
    fake: FakeOptions | None = None  # how the fake one behaves; None: instantly


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """Loads the served graph. Raises EngineOpenError, BundleError."""
    if options.runtime == "fake":
        return FakeEngine(bundle.manifest, options.fake or FakeOptions(), options.batch_sizes)
    if options.runtime == "onnxruntime":
        return OrtEngine(bundle, options.precision, options.batch_sizes, options.threads)
    raise EngineOpenError(f"runtime is {options.runtime!r}; it is one of onnxruntime, fake")


def open_mapping(bundle: Bundle, options: EngineOptions) -> Mapping:
    """Loads the mapping network; always on the CPU. Raises EngineOpenError, BundleError."""
    if options.runtime == "fake":
        return FakeMapping(bundle.manifest.generator)
    return OrtMapping(bundle)
