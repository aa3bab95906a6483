"""Everything that can fail between a bundle and its arrays; every message is one line.

EngineError
├── EngineOpenError         the runtime cannot load a graph, or the graph contradicts the manifest
│   ├── RuntimeMissing      this machine lacks the requested GPU or library
│   ├── PlanMissing         no engine was built for this bundle, GPU, TensorRT version, precision
│   ├── PlanError           an engine file is corrupt, or for another GPU, version or bundle
│   └── PlanDiffers         a built engine differs too much from ONNX Runtime
├── EngineRunError          a run failed, or its result contradicts the contract
│   └── OutOfDeviceMemory   the device lacks memory for this run; a later one may fit
├── DeviceLost              permanent: nothing runs on this device until the process restarts
├── NotFiniteError          a score or content is NaN or infinite, so no filter can judge the sample
├── SamplingError           the caller's options or latents do not fit the bundle, or each other
└── BundleLacks             the bundle has no view bank, score or output that the caller asks for
"""

from bundle.errors import printable_line


class EngineError(Exception):
    """Base class of all errors of this package. Messages are printable, also where they quote a
    graph or a runtime."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_line(message))


class EngineOpenError(EngineError):
    """The runtime cannot load a graph, or the graph contradicts the manifest."""


class RuntimeMissing(EngineOpenError):
    """This machine lacks the requested GPU or library."""


class PlanError(EngineOpenError):
    """An engine file is corrupt, or for another GPU, TensorRT version or bundle."""


class PlanMissing(EngineOpenError):
    """No engine was built for this bundle, GPU, TensorRT version and precision."""


class PlanDiffers(EngineOpenError):
    """A built engine differs from ONNX Runtime by more than the tolerance."""


class EngineRunError(EngineError):
    """A run failed, or its result contradicts the contract."""


class OutOfDeviceMemory(EngineRunError):
    """The device lacks memory for this run; a later one may fit."""


class DeviceLost(EngineError):
    """Permanent: nothing runs on this device until the process restarts."""


class NotFiniteError(EngineError):
    """A score or content is NaN or infinite.

    Attributes:
        rows: input rows with such a value.
        output: which output it is of.
    """

    def __init__(self, message: str, rows: tuple[int, ...], output: str = "uncertainty") -> None:
        super().__init__(message)
        self.rows, self.output = rows, output


class SamplingError(EngineError):
    """The caller's options or latents do not fit the bundle, or contradict each other."""


class BundleLacks(EngineError):
    """The bundle has no view bank, score or output that the caller asks for."""
