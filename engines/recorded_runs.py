"""Repeated runs on a stream, one kind per batch size, recorded as CUDA graphs where possible."""

import contextlib
import logging
from collections.abc import Callable

from engines.device import Device
from engines.errors import EngineError, EngineRunError

_log = logging.getLogger(__name__)


class RecordedRuns:
    """One recorded CUDA graph for each batch size. Owns the graphs, not the memory they use."""

    def __init__(
        self,
        device: Device,
        stream: int,
        enqueue: Callable[[int], None],  # puts one run of this batch size on the stream
        batch_sizes: tuple[int, ...],
        graphs: bool,  # whether to record CUDA graphs
    ) -> None:
        """Runs every batch size once before recording it, because the first run does one-time work
        that must not be recorded. Raises EngineError."""
        self._device, self._stream, self._enqueue = device, stream, enqueue
        self._graphs: dict[int, int] = {}
        try:
            for rows in batch_sizes:
                enqueue(rows)
                device.synchronize(stream)
                if graphs:
                    self._capture(rows)
        except BaseException:
            self.close()
            raise

    def launch(self, rows: int) -> None:
        """Puts one run on the stream. Raises EngineError."""
        if rows in self._graphs:
            self._device.launch(self._graphs[rows], self._stream)
        else:
            self._enqueue(rows)

    def close(self) -> None:
        """Frees the graphs, except on a lost device; idempotent."""
        with contextlib.suppress(EngineError):
            while self._graphs:
                self._device.end_graph(self._graphs.popitem()[1])

    def _capture(self, rows: int) -> None:
        """Records one run; if that fails, `launch` uses `enqueue`: slower, with the same result."""
        try:
            self._device.begin_capture(self._stream)
            try:
                self._enqueue(rows)
            finally:
                graph = self._device.end_capture(self._stream)
            self._graphs[rows] = graph
        except EngineRunError as error:
            _log.warning("batches of %d run without a CUDA graph: %s", rows, error)
