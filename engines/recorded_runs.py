"""What is put on a stream again and again, by batch size: recorded as CUDA graphs where it can."""

import contextlib
import logging
from collections.abc import Callable

from engines.device import Device
from engines.errors import EngineError, EngineRunError

_log = logging.getLogger(__name__)


class RecordedRuns:
    """One recording for each batch size. Owns its graphs, not what they run."""

    def __init__(
        self,
        device: Device,
        stream: int,
        enqueue: Callable[[int], None],  # puts one run of so many rows on the stream
        batch_sizes: tuple[int, ...],
        graphs: bool,
    ) -> None:
        """Runs every size once, unrecorded: runtimes do work then that they do not repeat.
        Raises EngineError."""
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
        """Frees the graphs; idempotent."""
        with contextlib.suppress(EngineError):  # a lost device frees nothing
            while self._graphs:
                self._device.end_graph(self._graphs.popitem()[1])

    def _capture(self, rows: int) -> None:
        """A run that cannot be recorded is made without: slower, and the same result."""
        try:
            self._device.begin_capture(self._stream)
            try:
                self._enqueue(rows)
            finally:
                graph = self._device.end_capture(self._stream)
            self._graphs[rows] = graph
        except EngineRunError as error:
            _log.warning("batches of %d run without a CUDA graph: %s", rows, error)
