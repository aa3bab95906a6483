"""Runs a TensorRT plan between fixed addresses, one execution context and, where the version can,
one CUDA graph for each batch size."""

import contextlib
import logging
from typing import Any

from engines.errors import EngineError, EngineOpenError, EngineRunError
from engines.run_memory import RunMemory
from engines.tensorrt_plan import TensorRTPlan

_log = logging.getLogger(__name__)


class TensorRTLauncher:
    """Launcher protocol. Owns its contexts and graphs, which keep the plan alive; the memory is
    another's."""

    def __init__(
        self, plan: TensorRTPlan, memory: RunMemory, batch_sizes: tuple[int, ...], graphs: bool
    ) -> None:
        """Runs every size once, uncaptured: TensorRT does work then that it does not repeat.
        Raises EngineError."""
        self._name, self._log, self._memory = f"tensorrt-{plan.version}", plan.log, memory
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, int] = {}
        for rows in batch_sizes:
            self._contexts[rows] = self._context(plan, rows)
        try:
            for rows in batch_sizes:
                self._enqueue(rows)
                memory.device.synchronize(memory.stream)
                if graphs:
                    self._capture(rows)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    def launch(self, rows: int) -> None:
        if rows in self._graphs:
            self._memory.device.launch(self._graphs[rows], self._memory.stream)
        else:
            self._enqueue(rows)

    def close(self) -> None:
        with contextlib.suppress(EngineError):  # a lost device frees nothing
            while self._graphs:
                self._memory.device.end_graph(self._graphs.popitem()[1])
        self._contexts.clear()

    def _context(self, plan: TensorRTPlan, rows: int) -> Any:
        """A context at one batch size; shapes and addresses are set once, for good."""
        memory, context = self._memory, plan.context()
        if rows not in plan.profiles:
            sizes = ", ".join(map(str, plan.batch_sizes))
            raise EngineOpenError(
                f"batch size {rows} is asked for; the engine was built for {sizes}"
            )
        good = context.set_optimization_profile_async(plan.profiles[rows], memory.stream)
        memory.device.synchronize(memory.stream)
        for name, spec in memory.inputs.items():
            good = good and context.set_input_shape(name, (rows, *spec.extents))
        for name, address in memory.addresses.items():
            good = good and context.set_tensor_address(name, address)
        if not good:
            raise EngineOpenError(
                f"TensorRT refuses batches of {rows}: {self._log.last_error}; build the "
                "engine again"
            )
        return context

    def _enqueue(self, rows: int) -> None:
        if not self._contexts[rows].execute_async_v3(self._memory.stream):
            raise EngineRunError(f"TensorRT failed: {self._log.last_error}")

    def _capture(self, rows: int) -> None:
        """A graph that cannot be recorded is run without one: slower, and the same result."""
        device, stream = self._memory.device, self._memory.stream
        try:
            device.begin_capture(stream)
            try:
                self._enqueue(rows)
            finally:
                graph = device.end_capture(stream)
            self._graphs[rows] = graph
        except EngineRunError as error:
            _log.warning("batches of %d run without a CUDA graph: %s", rows, error)
