"""Checks every engine makes of what it is asked, so that all engines refuse alike."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.errors import EngineOpenError, EngineRunError
from engines.protocol import Engine
from engines.signature import UNCERTAINTY


def check_batch_sizes(sizes: tuple[int, ...]) -> None:
    """Raises EngineOpenError unless sizes are positive and ascending."""
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        raise EngineOpenError(f"batch sizes are {list(sizes)}; they must be ascending, from 1 on")


def padded_size(sizes: tuple[int, ...], rows: int) -> int:
    """The smallest fixed size that `rows` fit."""
    return next(size for size in sizes if size >= rows)


def padded_feed(
    sizes: tuple[int, ...], ws: NDArray[np.float32], max_uncertainty: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The graph's inputs at the smallest fixed size; padding repeats the last row and is never
    kept."""
    padding = padded_size(sizes, len(ws)) - len(ws)
    never = np.full(padding, -np.inf, np.float32)
    return {
        "ws": np.concatenate([ws, np.repeat(ws[-1:], padding, axis=0)]),
        "max_uncertainty": np.concatenate([max_uncertainty, never]),
    }


def check_request(
    manifest: Manifest,
    engine: Engine,
    ws: NDArray[np.float32],
    max_uncertainty: NDArray[np.float32],
    outputs: tuple[str, ...],
) -> None:
    """Raises EngineRunError unless the engine can run this."""
    generator = manifest.generator
    if ws.dtype != np.float32 or ws.shape[1:] != (generator.num_ws, generator.w_dim):
        raise EngineRunError(
            f"ws is {ws.dtype} {list(ws.shape)}; expected float32 "
            f"[n, {generator.num_ws}, {generator.w_dim}]"
        )
    if not 1 <= len(ws) <= engine.batch_sizes[-1]:
        raise EngineRunError(f"{len(ws)} rows given; a run takes 1 to {engine.batch_sizes[-1]}")
    if max_uncertainty.dtype != np.float32 or max_uncertainty.shape != (len(ws),):
        raise EngineRunError(
            f"max_uncertainty is {max_uncertainty.dtype} {list(max_uncertainty.shape)}; expected "
            f"float32 [{len(ws)}]"
        )
    if np.isnan(max_uncertainty).any():
        raise EngineRunError("max_uncertainty holds NaN; +inf keeps everything")
    unknown = [name for name in outputs if name not in engine.outputs]
    if unknown:
        raise EngineRunError(
            f"{', '.join(unknown)} asked for; this bundle has {', '.join(engine.outputs)}"
        )
    if UNCERTAINTY not in engine.outputs and not np.isposinf(max_uncertainty).all():
        raise EngineRunError("this bundle has no score to filter by; max_uncertainty must be +inf")
