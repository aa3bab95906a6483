"""The tasks that compute for a served model: one per engine, and one for work ahead of draws."""

import asyncio
from collections.abc import Callable

from service.compute import Compute
from service.models import ServedModel
from service.tracing import Tracing


class RunningModel:
    """Computes for a model until `close`."""

    def __init__(
        self,
        model: ServedModel,
        tracing: Tracing,
        failed: Callable[[BaseException], None],
        lost: Callable[[], None],
    ) -> None:
        """`failed` is called with the exception when a bug ends a task, `lost` when its device
        fails."""
        self.model = model
        self._failed, self._lost = failed, lost
        self._computes = [Compute(engine, model, tracing) for engine in model.engines]
        works = [compute.run() for compute in self._computes]
        works.append(model.ahead.run(model.ready))
        self._tasks = [asyncio.create_task(work) for work in works]
        for task in self._tasks:
            task.add_done_callback(self._report)

    async def close(self) -> None:
        """Frees the engines once their current runs end, without blocking the event loop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.model.stop()  # nobody waits for the runs under way, which may never end
        await asyncio.get_running_loop().run_in_executor(None, self._free)

    def _free(self) -> None:
        for compute in self._computes:
            compute.close()  # waits for its thread, so that no engine is freed during a run
        self.model.close()

    def _report(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._lost()
        else:
            self._failed(error)
