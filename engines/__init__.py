"""Engines run a bundle's served graph: rows of w+ go in, images and labels come out.

All code about devices and inference runtimes is in this package.
"""

from engines.errors import EngineError
from engines.open import EngineOptions, open_engine, open_engines, open_mapping
from engines.protocol import Engine, EngineResult, Mapping
from engines.sampling import (
    LatentOptions,
    default_options,
    ws_from_indices,
    ws_from_latents,
)

__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineResult",
    "LatentOptions",
    "Mapping",
    "default_options",
    "open_engine",
    "open_engines",
    "open_mapping",
    "ws_from_indices",
    "ws_from_latents",
]
