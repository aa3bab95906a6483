"""Runs the fused labeller on one stream, with one CUDA graph for each batch size.

ws -> plan "taps" -> image and features -> CUDA kernels -> labels -> plan "filter" -> scores, and
rows with the kept ones first.
"""

from engines.kernel_runs import KernelRuns, KernelSet
from engines.recorded_runs import RecordedRuns
from engines.run_memory import RunMemory
from engines.tensorrt_launch import PlanContexts
from engines.tensorrt_plan import TensorRTPlan


class FusedLauncher:
    """Launcher protocol. Owns kernels, contexts and graphs, but not the RunMemory."""

    def __init__(
        self,
        plans: tuple[TensorRTPlan, ...],  # taps and filter
        kernels: KernelSet,
        memory: RunMemory,
        batch_sizes: tuple[int, ...],
        graphs: bool,
    ) -> None:
        """Raises EngineError; nothing stays on the device then."""
        self._name = f"tensorrt-{plans[0].version}-fused"
        device, stream = memory.device, memory.stream
        self._kernels = KernelRuns(kernels, device, stream, memory.rows)
        self._contexts: list[PlanContexts] = []
        self._runs: RecordedRuns | None = None
        try:
            addresses = memory.addresses | self._kernels.addresses
            for plan in plans:
                self._contexts.append(PlanContexts(plan, addresses, batch_sizes, device, stream))
            self._runs = RecordedRuns(device, stream, self._enqueue, batch_sizes, graphs)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    def launch(self, rows: int) -> None:
        assert self._runs is not None
        self._runs.launch(rows)

    def close(self) -> None:
        if self._runs is not None:
            self._runs.close()
        for contexts in self._contexts:
            contexts.close()
        self._kernels.close()

    def _enqueue(self, rows: int) -> None:
        taps, finish = self._contexts
        taps.enqueue(rows)
        self._kernels.enqueue(rows)
        finish.enqueue(rows)
