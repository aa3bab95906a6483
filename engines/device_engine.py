"""The Engine protocol on a GPU, whatever launches the graph there: TensorRT or ONNX Runtime.

A run copies in, launches, copies the scores and the order of the rows back, checks them, and then
copies back the kept prefix of what was asked for. What was discarded never crosses the bus.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.device import Device
from engines.errors import DeviceLost, EngineError, EngineRunError
from engines.plan_parity import Precision
from engines.protocol import EngineResult
from engines.request import check_batch_sizes, check_request, padded_feed, padded_size
from engines.result import result_from_arrays
from engines.run_memory import RunMemory
from engines.signature import KEPT, SAMPLE, UNCERTAINTY, labeller_outputs


class Launcher(Protocol):
    """A graph, ready to run between the addresses of one RunMemory."""

    @property
    def name(self) -> str:
        """Of the runtime, for example "tensorrt-10.3.0"."""

    def launch(self, rows: int) -> None:
        """Puts one run of this fixed size on the memory's stream. Raises EngineError."""

    def close(self) -> None:
        """Frees what it holds on the device; idempotent."""


class DeviceEngine:
    """Engine protocol. Several on one device, each with a stream of its own, overlap the copies
    of one with the computing of another."""

    def __init__(
        self,
        manifest: Manifest,
        precision: Precision,  # of the graph
        batch_sizes: tuple[int, ...],
        device: Device,
        open_launcher: Callable[[RunMemory], Launcher],
    ) -> None:
        """Raises EngineError; nothing stays allocated then."""
        check_batch_sizes(batch_sizes)
        self._manifest, self._precision = manifest, precision
        self._batch_sizes, self._device = batch_sizes, device
        self._specs = labeller_outputs(manifest)
        self._score = (UNCERTAINTY,) if UNCERTAINTY in self._specs else ()
        self._lost: DeviceLost | None = None
        self._closed = False
        device.use()
        self._memory = RunMemory(device, manifest, batch_sizes[-1])
        try:
            self._launcher = open_launcher(self._memory)
        except BaseException:
            self._memory.close()
            raise

    @property
    def name(self) -> str:
        return f"{self._launcher.name}-{self._precision}"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return self._batch_sizes

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> EngineResult:
        """As the protocol says. Raises EngineRunError, DeviceLost, NotFiniteError."""
        check_request(self._manifest, self, ws, max_uncertainty, outputs)
        if self._closed:
            raise EngineRunError("the engine is closed")
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        try:
            self._device.use()
            try:
                return self._run(ws, max_uncertainty, outputs)
            except EngineRunError:
                # The next run may not meet copies of this one; a lost device shows here as well.
                self._device.synchronize(self._memory.stream)
                raise
        except DeviceLost as error:
            self._lost = error
            raise

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(EngineError):
                self._device.use()
            self._launcher.close()
            self._memory.close()

    def _run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> EngineResult:
        rows = padded_size(self._batch_sizes, len(ws))
        memory = self._memory
        memory.upload(padded_feed(self._batch_sizes, ws, max_uncertainty))
        memory.forget(KEPT)
        self._launcher.launch(rows)
        order = memory.download((SAMPLE, KEPT, *self._score), rows)
        sample = result_from_arrays(order, len(ws), max_uncertainty, ()).sample
        kept = memory.download(outputs, len(sample))
        return EngineResult(sample, {name: array.copy() for name, array in kept.items()})
