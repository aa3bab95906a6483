"""Runs a TensorRT plan on fixed addresses, with one execution context and one CUDA graph for each
batch size (runs that cannot be recorded as a graph are launched without one)."""

from typing import Any

from engines.device import Device
from engines.errors import EngineOpenError, EngineRunError, PlanError
from engines.recorded_runs import RecordedRuns
from engines.run_memory import RunMemory
from engines.tensorrt_plan import TensorRTPlan, shape_of


class PlanContexts:
    """A plan's execution contexts, one for each batch size; they keep the plan alive."""

    def __init__(
        self,
        plan: TensorRTPlan,
        addresses: dict[str, int],  # device address of every input and output
        batch_sizes: tuple[int, ...],
        device: Device,
        stream: int,
    ) -> None:
        """Sets all shapes and addresses, which never change afterwards. Raises EngineOpenError."""
        self._log, self._stream = plan.log, stream
        self._contexts: dict[int, Any] = {}
        for rows in batch_sizes:
            self._contexts[rows] = self._context(plan, addresses, rows, device)

    def enqueue(self, rows: int) -> None:
        """Puts one run of this size on the stream. Raises EngineRunError."""
        if not self._contexts[rows].execute_async_v3(self._stream):
            raise EngineRunError(f"TensorRT failed: {self._log.last_error}")

    def close(self) -> None:
        """Frees the contexts; idempotent."""
        self._contexts.clear()

    def _context(
        self, plan: TensorRTPlan, addresses: dict[str, int], rows: int, device: Device
    ) -> Any:
        context = plan.context()
        if rows not in plan.profiles:
            sizes = ", ".join(map(str, plan.batch_sizes))
            raise EngineOpenError(
                f"batch size is {rows}; the engine was built for {sizes}: use one of these or "
                "build it again"
            )
        self._log.forget()
        if not context.set_optimization_profile_async(plan.profiles[rows], self._stream):
            raise EngineOpenError(
                f"TensorRT has no working memory for batches of {rows}: {self._log.last_error}; "
                "use smaller batches or fewer contexts"
            )
        device.synchronize(self._stream)
        accepted = True
        for name, spec in plan.inputs.items():
            accepted = accepted and context.set_input_shape(name, shape_of(spec, rows))
        for name in (*plan.inputs, *plan.outputs):
            accepted = accepted and context.set_tensor_address(name, addresses[name])
        if not accepted:
            raise EngineOpenError(
                f"TensorRT refuses batches of {rows}: {self._log.last_error}; build the "
                "engine again"
            )
        for name, spec in plan.outputs.items():  # a larger output would overrun its memory
            if (shape := tuple(context.get_tensor_shape(name))) != shape_of(spec, rows):
                raise PlanError(
                    f"the engine's {name} is {list(shape)} in batches of {rows}; the bundle "
                    f"needs {list(shape_of(spec, rows))}"
                )
        return context


class TensorRTLauncher:
    """Launcher protocol. Owns its contexts and graphs, but not the RunMemory."""

    def __init__(
        self, plan: TensorRTPlan, memory: RunMemory, batch_sizes: tuple[int, ...], graphs: bool
    ) -> None:
        """Raises EngineError."""
        self._name = f"{plan.product}-{plan.version}"
        device, stream = memory.device, memory.stream
        self._contexts = PlanContexts(plan, memory.addresses, batch_sizes, device, stream)
        try:
            self._runs = RecordedRuns(device, stream, self._contexts.enqueue, batch_sizes, graphs)
        except BaseException:
            self._contexts.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    def launch(self, rows: int) -> None:
        self._runs.launch(rows)

    def close(self) -> None:
        self._runs.close()
        self._contexts.close()
