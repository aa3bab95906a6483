"""The Engine protocol on a GPU; TensorRT or ONNX Runtime launches the graph.

A run copies ws to the device, launches the graph, and copies back the scores, the content and the
row order.
Only after these are checked are the requested outputs of the kept samples copied back, so that
discarded samples never cross the bus.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.content import CONTENT
from engines.device import Device
from engines.errors import DeviceLost, EngineError, EngineRunError
from engines.protocol import EngineResult, Precision
from engines.request import RunContract
from engines.result import result_from_arrays
from engines.run_memory import RunMemory
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


class Launcher(Protocol):
    """A graph, ready to run on the inputs and outputs of one RunMemory."""

    @property
    def name(self) -> str:
        """Name and version of the runtime, for example "tensorrt-10.3.0"."""

    def launch(self, rows: int) -> None:
        """Puts one run of this batch size on the memory's stream. Raises EngineError."""

    def close(self) -> None:
        """Frees what it holds on the device; idempotent."""


class DeviceEngine:
    """Engine protocol. Each engine has its own stream, so that of several engines on one device
    one can copy while another computes."""

    def __init__(
        self,
        manifest: Manifest,
        precision: Precision,
        batch_sizes: tuple[int, ...],
        device: Device,
        open_launcher: Callable[[RunMemory], Launcher],
    ) -> None:
        """Raises EngineError; nothing stays allocated then."""
        self._contract = RunContract(manifest, batch_sizes)
        self.batch_sizes, self.outputs = batch_sizes, self._contract.outputs
        # Outputs that tell which rows were kept; they are copied back first.
        score = (UNCERTAINTY,) if UNCERTAINTY in self.outputs else ()
        content = () if self._contract.boxes is None else (CONTENT,)
        self._bookkeeping = (SAMPLE, KEPT, *score, *content)
        self._device = device
        self._lost: DeviceLost | None = None  # why nothing can run any more
        device.use()
        self._memory = RunMemory(device, manifest, batch_sizes[-1])
        try:
            self._launcher = open_launcher(self._memory)
        except BaseException:
            self._memory.close()
            raise
        self.name = f"{self._launcher.name}-{precision}"

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,
    ) -> EngineResult:
        """See Engine.run. Raises EngineRunError, DeviceLost, NotFiniteError."""
        feed = self._contract.feed(ws, max_uncertainty, outputs, boxes)
        if self._lost is not None:
            raise self._lost.with_traceback(None)  # without the frames of the run that lost it
        try:
            self._device.use()
            try:
                return self._run(feed, len(ws), outputs)
            except EngineRunError:
                # Copies of this run must end before the next one begins; a lost device also
                # shows here.
                self._device.synchronize(self._memory.stream)
                raise
        except DeviceLost as error:
            self._lost = error
            raise

    def stop(self) -> None:
        """Does nothing: a kernel that was launched cannot be ended."""

    def close(self) -> None:
        if not self._contract.closed:
            self._contract.closed = True
            with contextlib.suppress(EngineError):
                self._device.use()
            self._launcher.close()
            self._memory.close()

    def _run(
        self,
        feed: dict[str, NDArray[np.float32]],  # padded to a batch size
        rows: int,  # without padding
        outputs: tuple[str, ...],
    ) -> EngineResult:
        padded, memory = len(feed["ws"]), self._memory
        memory.upload(feed)
        memory.invalidate(KEPT)
        self._launcher.launch(padded)
        order = memory.download(self._bookkeeping, padded)
        judged = result_from_arrays(order, feed, rows, ())
        kept = memory.download(outputs, len(judged.sample))
        return replace(judged, arrays={name: array.copy() for name, array in kept.items()})
