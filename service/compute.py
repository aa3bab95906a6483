"""Prepares engine batches for one engine and runs them: its thread, and the batch that waits.

Shortly before a run ends, the next batch is drawn and its latents are mapped: early enough that
the engine need not wait, and no earlier, so that a small request which comes during a run is part
of the next batch. Streams that ended meanwhile are dropped before the engine sees their rows.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engines.errors import DeviceLost
from engines.protocol import Engine
from service.batch import EngineRows, StreamRows, engine_rows_from_draw, failed_rows, run_engine
from service.delivery import Stream
from service.models import ServedModel
from service.scheduler import Draw
from service.tracing import Tracing

RECENT = 8  # number of runs and of draws that predict the next one
MARGIN_S = 0.005  # for an event loop that is busy with messages


@dataclass(frozen=True)
class _Prepared:
    """An engine batch before its run."""

    batch: list[EngineRows]
    failed: list[StreamRows]  # streams whose latents could not be mapped


class Compute:
    """Works for one model on one engine until cancelled; close it afterwards."""

    def __init__(self, engine: Engine, model: ServedModel, tracing: Tracing) -> None:
        self._engine, self._model, self._tracing = engine, model, tracing
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._pace = Pace()

    async def run(self) -> None:
        """Prepares and runs batches; returns when the device is lost, after telling the model.

        Any other exception from here is a bug, and ends the server.
        """
        queue: asyncio.Queue[_Prepared] = asyncio.Queue()
        slot = asyncio.Semaphore(1)  # one batch may wait in front of the engine
        works = (self._prepare_batches(queue, slot), self._run_batches(queue, slot))
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Waits for the run under way, then ends the thread."""
        self._engine_thread.shutdown()

    async def _prepare_batches(
        self, queue: asyncio.Queue[_Prepared], slot: asyncio.Semaphore
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await slot.acquire()
            await asyncio.sleep(self._pace.wait_s(time.monotonic()))
            draws = await self._model.draws(self._engine.batch_sizes[-1])
            began = time.monotonic()
            streams = [self._model.streams[draw.lane] for draw in draws]
            prepared = await loop.run_in_executor(
                self._model.mapping_thread, self._prepared, draws, streams
            )
            self._pace.drew(time.monotonic() - began)
            queue.put_nowait(prepared)

    def _prepared(self, draws: Sequence[Draw], streams: Sequence[Stream]) -> _Prepared:
        """Maps the latents of all draws; runs on the mapping thread."""
        batch: list[EngineRows] = []
        failed: list[StreamRows] = []
        mapping, bundle = self._model.mapping, self._model.bundle
        for draw, stream in zip(draws, streams, strict=True):
            try:
                batch.append(engine_rows_from_draw(stream, draw, mapping, bundle))
            except Exception as error:  # ends its own stream, see errors
                failed.append((stream, failed_rows(draw.first, error)))
        return _Prepared(batch, failed)

    async def _run_batches(self, queue: asyncio.Queue[_Prepared], slot: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        while True:
            prepared = await queue.get()
            now = time.monotonic()
            batch = [rows for rows in prepared.batch if rows.stream.lane.is_live(now)]
            size = sum(len(rows.ws) for rows in batch)
            self._pace.run_begins(size, now)
            slot.release()
            results = list(prepared.failed)
            if batch:
                try:
                    results += await loop.run_in_executor(
                        self._engine_thread,
                        run_engine, self._engine, batch, self._model.metrics,
                    )  # fmt: skip
                except DeviceLost as error:
                    return self._model.lose(error)
                self._pace.run_ended(size, time.monotonic() - now)
                shares = [(rows.stream.span, len(rows.ws), rows.since) for rows in batch]
                self._tracing.engine_run(self._model.name, shares, now, time.monotonic())
            for stream, filtered in results:
                stream.add(filtered)
                self._model.scheduler.wake(stream.lane, time.monotonic())


class Pace:
    """Predicts when to draw the next batch, from recent durations of one engine's runs and draws.

    Times are in seconds, all on the caller's clock.
    """

    def __init__(self) -> None:
        self._run_s: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._draw_s: deque[float] = deque(maxlen=RECENT)
        self._run_ends = 0.0

    def drew(self, seconds: float) -> None:
        """Records how long drawing and mapping a batch took."""
        self._draw_s.append(seconds)

    def run_begins(self, rows: int, now: float) -> None:
        """Records that the engine has a batch of `rows` rows, and predicts its end."""
        self._run_ends = now + min(self._run_s[rows], default=0.0)

    def run_ended(self, rows: int, seconds: float) -> None:
        """Records how long a batch of `rows` rows took."""
        self._run_s[rows].append(seconds)

    def wait_s(self, now: float) -> float:
        """How long drawing may still wait; 0 when no run of that size was measured yet."""
        lead_s = max(self._draw_s, default=0.0) + MARGIN_S
        return max(0.0, self._run_ends - lead_s - now)
