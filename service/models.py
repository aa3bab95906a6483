"""A bundle that is being served: its engines, its lanes, and who is behind each lane."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bundle.open import Bundle
from bundle.views import CAMERA_FIELDS
from engines.errors import DeviceLost
from engines.protocol import Engine, Mapping
from engines.signature import ArraySpec, labeller_outputs
from labelmint.latents import Mt19937Rows
from service.batch import CAMERA, VIEW, W
from service.delivery import Message, Stream
from service.errors import NotServing
from service.metrics import ModelMetrics
from service.query import Query
from service.scheduler import Draw, Lane, Scheduler
from service.tracing import INVALID_SPAN, Span

_log = logging.getLogger(__name__)
DELAY_STEPS = 4  # looks at what waits, while a batch is delayed


@dataclass(eq=False)
class ServedModel:
    """One model; `engines` share its streams, until it is ended."""

    name: str
    bundle: Bundle
    engines: tuple[Engine, ...]
    mapping: Mapping
    metrics: ModelMetrics
    batch_delay_s: float = 0.0  # that a batch which is not full waits for more rows
    scheduler: Scheduler = field(default_factory=Scheduler)
    streams: dict[Lane, Stream] = field(default_factory=dict)
    ended: NotServing | None = None  # why there are no streams any more
    lost: bool = False  # with its device, until this process starts anew
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set when a last stream ends
    _shown: int = 0  # of this bundle's rows in the metric, which one that it replaces shares
    # One for all engines: a stream's MT19937 position is not safe for two threads.
    mapping_thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "mapping")
    )

    @property
    def batch_size(self) -> int:
        """Samples of a full engine batch."""
        return self.engines[0].batch_sizes[-1]

    @property
    def outputs(self) -> dict[str, ArraySpec]:
        """What a sample can consist of, by name, in wire order."""
        manifest = self.bundle.manifest
        ws = ArraySpec(np.dtype(np.float32), (manifest.generator.num_ws, manifest.generator.w_dim))
        specs = {**labeller_outputs(manifest), W: ws}
        if self.bundle.views is not None:
            specs[VIEW] = ArraySpec(np.dtype(np.int32), ())
            if self.bundle.views.cameras is not None:
                specs[CAMERA] = ArraySpec(np.dtype(np.float32), (len(CAMERA_FIELDS),))
        return specs

    @contextmanager
    def stream(
        self,
        query: Query,
        window: int,
        deadline: float,
        mt19937: Mt19937Rows | None = None,
        span: Span = INVALID_SPAN,
    ) -> Iterator[Stream]:
        """A stream that engines work for until the block ends. Raises NotServing."""
        if self.ended is not None:
            raise self.ended.with_traceback(None)  # of those who got it before
        plan = query.plan
        lane = Lane(plan.first, plan.stop, plan.unit, window, query.count, query.weight, deadline)
        stream = self.streams[lane] = Stream(query, lane, mt19937, span)
        self.metrics.streams.inc()
        try:
            self.scheduler.add(lane, time.monotonic())
            self._show_waiting()
            yield stream
        finally:
            self.scheduler.remove(lane)
            self._show_waiting()
            del self.streams[lane]
            self.metrics.streams.dec()
            if not self.streams:
                self.idle.set()

    async def draws(self, capacity: int) -> list[Draw]:
        """The next engine batch; waits until some stream has rows to draw."""
        await self._gather(capacity)
        while not (draws := self.scheduler.draw(capacity, time.monotonic())):
            await self.scheduler.work.wait()
            await self._gather(capacity)
        now = time.monotonic()
        self._show_waiting()
        for draw in draws:
            self.metrics.queue_seconds.observe(now - draw.since)
        return draws

    def _show_waiting(self) -> None:
        waiting = self.scheduler.waiting()
        self.metrics.waiting.inc(waiting - self._shown)
        self._shown = waiting

    async def _gather(self, capacity: int) -> None:
        """Lets rows that are no full batch wait `batch_delay_s` for company."""
        until = time.monotonic() + self.batch_delay_s
        while 0 < self.scheduler.waiting() < capacity and time.monotonic() < until:
            await asyncio.sleep(self.batch_delay_s / DELAY_STEPS)

    def sent(self, stream: Stream, message: Message, message_bytes: int) -> None:
        """A message left; its stream may draw again."""
        now = time.monotonic()
        stream.sent(message)
        self.scheduler.wake(stream.lane, now)
        self.metrics.kept.inc(message.size)
        self.metrics.discarded.inc(message.discarded)
        self.metrics.message_bytes.inc(message_bytes)
        if message.kept:
            self.metrics.message_seconds.observe(now - min(kept.since for kept in message.kept))

    async def end(self, why: NotServing, grace_s: float) -> None:
        """Streams may finish for so long; then they end before their next message."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._without_streams(), grace_s)
        self.ended = why
        for stream in self.streams.values():
            stream.stop(why)

    def lose(self, error: DeviceLost) -> None:
        """Streams end before their next message, and no new ones begin: another replica may have
        a device that works."""
        if not self.lost:
            _log.error("model %s is lost: %s", self.name, error)
        self.lost = True
        self.metrics.lost.set(1)
        self.ended = NotServing(
            f"model {self.name} lost its device on this server; go on from next_index at another "
            "replica"
        )
        for stream in self.streams.values():
            stream.stop(self.ended)

    async def _without_streams(self) -> None:
        while self.streams:
            self.idle.clear()
            await self.idle.wait()

    def close(self) -> None:
        """Frees the engines; nothing may be running on them."""
        self.mapping_thread.shutdown()
        for engine in self.engines:
            engine.close()
