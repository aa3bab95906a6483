"""What can go wrong between a bundle and its arrays; every message is one line.

EngineError
├── EngineOpenError    the runtime cannot load a graph, or the graph contradicts the manifest
├── EngineRunError     a run failed, or what came back contradicts the contract
├── NotFiniteError     a score is NaN or infinite: the sample must not pass for a discarded one
└── SamplingError      the caller's sampling options or latents do not fit the bundle
"""


class EngineError(Exception):
    """Base of the room."""


class EngineOpenError(EngineError):
    """The runtime cannot load a graph, or the graph contradicts the manifest."""


class EngineRunError(EngineError):
    """A run failed, or what came back contradicts the contract."""


class NotFiniteError(EngineError):
    """A score is NaN or infinite; `rows` are the input rows concerned."""

    def __init__(self, message: str, rows: tuple[int, ...]) -> None:
        super().__init__(message)
        self.rows = rows


class SamplingError(EngineError):
    """The caller's sampling options or latents do not fit the bundle; the caller's fault."""
