"""What every engine promises to its callers (service, export), whatever runtime it uses."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "float16"]  # of the labeller's graph


@dataclass(frozen=True)
class EngineResult:
    """The kept samples of one run, in ascending order of their input rows."""

    sample: NDArray[np.int32]  # [kept], the input row of each output row
    # By output name, each [kept, ...]. The caller may keep them: an engine that reuses its
    # buffers returns copies.
    arrays: dict[str, NDArray[np.generic]]
    # CONTENT of all rows of the run, also of those that were not kept, float32 [n, S]; None: the
    # bundle computes none.
    content: NDArray[np.float32] | None = None


class Engine(Protocol):
    """Runs the labeller's graph at fixed batch sizes. One thread calls an engine at a time."""

    @property
    def name(self) -> str:
        """Name of the runtime, for example "onnxruntime-cpu"."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Fixed batch sizes, ascending; a run of n samples is padded to the next one."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that a run can return."""

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,
    ) -> EngineResult:
        """Computes n samples and returns those whose uncertainty is at most their threshold, and
        whose content is within one of their boxes.

        `ws` is [n, num_ws, w_dim] and `max_uncertainty` [n], with 1 <= n <= batch_sizes[-1].
        `boxes` is [n, B, 2, S], see engines.content; without them any content passes.
        Only the arrays named by `outputs` are copied from the device. Raises EngineError; a
        wrong or incomplete batch is never returned.
        """

    def stop(self) -> None:
        """Ends the run under way, from another thread, where the runtime can; every later run
        fails there too."""

    def close(self) -> None:
        """Frees the device; idempotent."""


class Mapping(Protocol):
    """Runs the mapping network: z to untruncated w."""

    def run(self, z: NDArray[np.float32], c: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """z [n, z_dim] -> w [n, w_dim]; c is one-hot [n, num_classes], or None for a generator
        without classes. Each row is independent of the others, bit for bit."""

    def stop(self) -> None:
        """As Engine.stop."""

    def close(self) -> None:
        """As Engine.close."""
