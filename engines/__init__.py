"""Engines run a bundle's served graph; everything about devices stays in this room."""

from engines.errors import EngineError
from engines.open import EngineOptions, open_engine, open_engines, open_mapping
from engines.protocol import Engine, EngineResult, Mapping
from engines.sampling import (
    SamplingOptions,
    default_options,
    ws_from_indices,
    ws_from_latents,
)

__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineResult",
    "Mapping",
    "SamplingOptions",
    "default_options",
    "open_engine",
    "open_engines",
    "open_mapping",
    "ws_from_indices",
    "ws_from_latents",
]
