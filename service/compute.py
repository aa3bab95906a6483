"""Draws batches for one engine and runs them: its thread, and the queue of batches before it.

Shortly before a run ends, the next batch is drawn and its latents are mapped, so early that the
engine need not wait, and no earlier: a small request that comes while a run is under way finds
room in the very next batch. Streams that ended meanwhile are dropped before the engine sees them.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from engines.errors import DeviceLost
from engines.protocol import Engine
from service.batch import Part, Settled, failed_outcome, outcomes_from_parts, part_from_draw
from service.delivery import Stream
from service.models import ServedModel
from service.scheduler import Draw
from service.tracing import Tracing

RECENT = 8  # runs and draws to judge by
MARGIN_S = 0.005  # for an event loop that is busy with messages


class Pace:
    """Recent durations of one engine's runs and of the drawing in front of it.

    Times are in seconds, on one clock.
    """

    def __init__(self) -> None:
        self._run_s: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._draw_s: deque[float] = deque(maxlen=RECENT)
        self._run_ends = 0.0

    def drew(self, seconds: float) -> None:
        """Drawing and mapping a batch took so long."""
        self._draw_s.append(seconds)

    def run_begins(self, rows: int, now: float) -> None:
        """The engine has a batch of so many rows."""
        self._run_ends = now + min(self._run_s[rows], default=0.0)

    def run_ended(self, rows: int, seconds: float) -> None:
        """The batch took so long."""
        self._run_s[rows].append(seconds)

    def wait_s(self, now: float) -> float:
        """How long drawing may still wait; 0 after a run of a size that is new."""
        lead_s = max(self._draw_s, default=0.0) + MARGIN_S
        return max(0.0, self._run_ends - lead_s - now)


Batch = tuple[list[Part], list[Settled]]  # rows to run, and streams whose latents failed


class Compute:
    """Works for one model on one engine until cancelled; a context manager."""

    def __init__(self, engine: Engine, model: ServedModel, tracing: Tracing) -> None:
        self._engine, self._model, self._tracing = engine, model, tracing
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._pace = Pace()

    async def run(self) -> None:
        """Returns when the device is lost, with the model told; an exception from here is a bug,
        and the end of the server."""
        ahead: asyncio.Queue[Batch] = asyncio.Queue()
        place = asyncio.Semaphore(1)  # one batch may wait in front of the engine
        works = (self._prepare(ahead, place), self._compute(ahead, place))
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

    async def _prepare(self, ahead: asyncio.Queue[Batch], place: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await place.acquire()
            await asyncio.sleep(self._pace.wait_s(time.monotonic()))
            draws = await self._model.draws(self._engine.batch_sizes[-1])
            began = time.monotonic()
            streams = [self._model.streams[draw.lane] for draw in draws]
            batch = await loop.run_in_executor(
                self._model.mapping_thread, self._batch, draws, streams
            )
            self._pace.drew(time.monotonic() - began)
            ahead.put_nowait(batch)

    async def _compute(self, ahead: asyncio.Queue[Batch], place: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        while True:
            parts, settled = await ahead.get()
            now = time.monotonic()
            parts = [part for part in parts if part.stream.lane.wanted(now)]
            rows = sum(len(part.ws) for part in parts)
            self._pace.run_begins(rows, now)
            place.release()
            if parts:
                try:
                    settled += await loop.run_in_executor(
                        self._engine_thread,
                        outcomes_from_parts, self._engine, parts, self._model.metrics,
                    )  # fmt: skip
                except DeviceLost as error:
                    return self._model.lose(error)
                self._pace.run_ended(rows, time.monotonic() - now)
                shares = [(part.stream.span, len(part.ws), part.since) for part in parts]
                self._tracing.engine_run(self._model.name, shares, now, time.monotonic())
            for stream, outcome in settled:
                stream.settle(outcome)
                self._model.scheduler.wake(stream.lane, time.monotonic())

    def _batch(self, draws: Sequence[Draw], streams: Sequence[Stream]) -> Batch:
        parts: list[Part] = []
        failed: list[Settled] = []
        mapping, bundle = self._model.mapping, self._model.bundle
        for draw, stream in zip(draws, streams, strict=True):
            try:
                parts.append(part_from_draw(stream, draw, mapping, bundle))
            except Exception as error:  # ends its own stream, see errors
                failed.append((stream, failed_outcome(draw.first, error)))
        return parts, failed
