"""Checks and padding of a run's inputs, shared by all engines so that all refuse alike."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.content import BOXES, boxes_of_all
from engines.errors import EngineOpenError, EngineRunError
from engines.signature import UNCERTAINTY, boxes_extents, labeller_outputs


def check_batch_sizes(sizes: tuple[int, ...]) -> None:
    """Raises EngineOpenError unless sizes are positive and ascending."""
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        raise EngineOpenError(
            f"batch sizes are {list(sizes)}; they must be positive and strictly ascending"
        )


class RunContract:
    """What one engine accepts: its bundle's shapes, fixed batch sizes, and outputs."""

    def __init__(
        self,
        manifest: Manifest,
        batch_sizes: tuple[int, ...],
        outputs: tuple[str, ...] | None = None,  # None: all that the bundle has, content included
        content: bool = False,  # whether there is content beside these outputs
    ) -> None:
        """Raises EngineOpenError for batch sizes that are not positive and ascending."""
        check_batch_sizes(batch_sizes)
        self.batch_sizes = batch_sizes
        self.outputs = tuple(labeller_outputs(manifest)) if outputs is None else outputs
        # (B, 2, S) of BOXES; None: the graph has neither that input nor the output CONTENT
        self.boxes = boxes_extents(manifest) if outputs is None or content else None
        self.closed = False  # set by the engine's `close`
        self._generator = manifest.generator

    def feed(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,  # [n, B, 2, S]; None: any content passes
    ) -> dict[str, NDArray[np.float32]]:
        """Inputs of the graph for one run, padded to the smallest batch size that fits.

        Padding repeats the last row of ws with threshold -inf, so it is never kept. Raises
        EngineRunError unless the engine can run this.
        """
        self._check(ws, max_uncertainty, outputs)
        rows = next(size for size in self.batch_sizes if size >= len(ws))
        padding = rows - len(ws)
        never = np.full(padding, -np.inf, np.float32)
        feed = {
            "ws": np.concatenate([ws, np.repeat(ws[-1:], padding, axis=0)]),
            "max_uncertainty": np.concatenate([max_uncertainty, never]),
        }
        if self.boxes is not None:
            feed[BOXES] = np.repeat(boxes_of_all(self.boxes[0], self.boxes[2])[None], rows, axis=0)
        if boxes is not None:
            self._check_boxes(boxes, len(ws))
            feed[BOXES][: len(ws)] = boxes
        return feed

    def _check_boxes(self, boxes: NDArray[np.float32], rows: int) -> None:
        if self.boxes is None:
            raise EngineRunError("this bundle computes no content to compare; leave boxes out")
        if boxes.dtype != np.float32 or boxes.shape != (rows, *self.boxes):
            raise EngineRunError(
                f"boxes is {boxes.dtype} {list(boxes.shape)}; expected float32 "
                f"{[rows, *self.boxes]}"
            )
        if np.isnan(boxes).any():
            raise EngineRunError("boxes holds NaN; -inf and +inf leave a side open")

    def _check(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> None:
        num_ws, w_dim = self._generator.num_ws, self._generator.w_dim
        if ws.dtype != np.float32 or ws.shape[1:] != (num_ws, w_dim):
            raise EngineRunError(
                f"ws is {ws.dtype} {list(ws.shape)}; expected float32 [n, {num_ws}, {w_dim}]"
            )
        if not 1 <= len(ws) <= self.batch_sizes[-1]:
            raise EngineRunError(f"ws has {len(ws)} rows; a run takes 1 to {self.batch_sizes[-1]}")
        if max_uncertainty.dtype != np.float32 or max_uncertainty.shape != (len(ws),):
            raise EngineRunError(
                f"max_uncertainty is {max_uncertainty.dtype} {list(max_uncertainty.shape)}; "
                f"expected float32 [{len(ws)}]"
            )
        if np.isnan(max_uncertainty).any():
            raise EngineRunError("max_uncertainty holds NaN; +inf keeps everything")
        unknown = [name for name in outputs if name not in self.outputs]
        if unknown:
            raise EngineRunError(
                f"outputs has {', '.join(unknown)}; this bundle has {', '.join(self.outputs)}"
            )
        if UNCERTAINTY not in self.outputs and not np.isposinf(max_uncertainty).all():
            raise EngineRunError(
                "this bundle has no score to filter by; max_uncertainty must be +inf"
            )
        if self.closed:
            raise EngineRunError("the engine is closed")
