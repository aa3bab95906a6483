"""The seam between policy (service) and devices: what every engine promises."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EngineResult:
    """The kept samples of one run, in ascending order of their input rows."""

    sample: NDArray[np.int32]  # [kept], the input row of each output row
    # By output name, each [kept, ...]. They are the caller's: an engine with buffers that it
    # reuses hands out copies.
    arrays: dict[str, NDArray[np.generic]]


class Engine(Protocol):
    """Runs `labeller` at fixed batch sizes. One thread calls an engine at a time."""

    @property
    def name(self) -> str:
        """For example "onnxruntime-cpu"."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Ascending fixed sizes; a run of n samples is padded to the next one."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays a run can return."""

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> EngineResult:
        """ws [n, num_ws, w_dim], max_uncertainty [n], n <= batch_sizes[-1]; only `outputs`
        are copied back. Raises EngineError; never returns a wrong or half batch."""

    def close(self) -> None:
        """Frees the device; idempotent."""


class Mapping(Protocol):
    """Runs `mapping`: z to untruncated w."""

    def run(self, z: NDArray[np.float32], c: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """z [n, z_dim], c one-hot [n, num_classes] for conditional generators -> [n, w_dim];
        each row independent of the others, bit for bit."""
