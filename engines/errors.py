"""What can go wrong between a bundle and its arrays; every message is one line.

EngineError
├── EngineOpenError         the runtime cannot load a graph, or the graph contradicts the manifest
│   ├── RuntimeMissing      this machine lacks the device or the library that was asked for
│   ├── PlanMissing         nobody built an engine for this bundle, GPU, version and precision
│   ├── PlanError           an engine file is corrupt, or of another GPU, version or bundle
│   └── PlanDiffers         a built engine is further from ONNX Runtime than is accepted
├── EngineRunError          a run failed, or what came back contradicts the contract
│   └── OutOfDeviceMemory   the device has no room for this run; a later one may fit
├── DeviceLost              permanent: nothing runs on this device until the process starts anew
├── NotFiniteError          a score is NaN or infinite: it must not pass for a discarded one
└── SamplingError           the caller's sampling options or latents do not fit the bundle
"""


class EngineError(Exception):
    """Base of the room."""


class EngineOpenError(EngineError):
    """The runtime cannot load a graph, or the graph contradicts the manifest."""


class RuntimeMissing(EngineOpenError):
    """This machine lacks the device or the library that was asked for."""


class PlanError(EngineOpenError):
    """An engine file is corrupt, or of another GPU, version or bundle."""


class PlanMissing(EngineOpenError):
    """Nobody built an engine for this bundle, GPU, version and precision."""


class PlanDiffers(EngineOpenError):
    """A built engine is further from ONNX Runtime than is accepted."""


class EngineRunError(EngineError):
    """A run failed, or what came back contradicts the contract."""


class OutOfDeviceMemory(EngineRunError):
    """The device has no room for this run; a later one may fit."""


class DeviceLost(EngineError):
    """Permanent: nothing runs on this device until the process starts anew."""


class NotFiniteError(EngineError):
    """A score is NaN or infinite; `rows` are the input rows concerned."""

    def __init__(self, message: str, rows: tuple[int, ...]) -> None:
        super().__init__(message)
        self.rows = rows


class SamplingError(EngineError):
    """The caller's sampling options or latents do not fit the bundle; the caller's fault."""
