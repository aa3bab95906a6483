"""A bundle that is being served: its engines, its scheduler, and the stream of each lane."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from bundle.open import Bundle
from engines.errors import DeviceLost
from engines.protocol import Engine, Mapping
from engines.signature import ArraySpec, sample_outputs
from service.ahead import Ahead, AheadStream
from service.delivery import Message, Stream
from service.errors import NotServing
from service.metrics import ModelMetrics
from service.mt19937 import Mt19937Stream
from service.query import Query
from service.scheduler import Draw, Lane, Scheduler
from service.screen import Screening
from service.tracing import INVALID_SPAN, Span

_log = logging.getLogger(__name__)
DELAY_STEPS = 4  # checks for enough waiting rows during one batch delay


@dataclass(eq=False)
class ServedModel:
    """One served model; all `engines` work for the same streams."""

    name: str
    bundle: Bundle
    engines: tuple[Engine, ...]
    mapping: Mapping
    metrics: ModelMetrics
    batch_delay_s: float = 0.0  # how long a batch that is not full waits for more rows
    scheduler: Scheduler = field(default_factory=Scheduler)
    streams: dict[Lane, Stream] = field(default_factory=dict)
    ended: NotServing | None = None  # set when no more streams are served; the reason
    lost: bool = False  # whether its device failed, which is final for this process
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set when the last stream ends
    # This model's part of the gauge of waiting rows; during a reload two models share the gauge.
    _shown: int = 0
    ahead: Ahead = field(default_factory=Ahead)
    # One thread for all engines: a stream's rows are mapped in the order in which they were drawn.
    mapping_thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "mapping")
    )

    @property
    def batch_size(self) -> int:
        """Samples of a full engine batch."""
        return self.engines[0].batch_sizes[-1]

    @property
    def outputs(self) -> dict[str, ArraySpec]:
        """Arrays that a sample can have, by name, in the order in which they are sent."""
        return sample_outputs(self.bundle.manifest, self.bundle.views)

    @contextmanager
    def stream(
        self,
        query: Query,
        window: int,
        deadline: float,
        client: str = "",
        span: Span = INVALID_SPAN,
    ) -> Iterator[Stream]:
        """Opens a stream that engines work for until the block ends.

        Args:
            query: the checked request.
            window: samples that may be computed and not yet sent.
            deadline: end of the call on time.monotonic's clock.
            client: who called; every client has the same share of the engines.
            span: trace span of the call.

        Raises:
            NotServing: the model was replaced or unloaded, or its device failed.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)  # without the frames of earlier raises
        plan = query.plan
        lane = Lane(
            plan.first, plan.stop, plan.unit, window, query.count, query.weight, deadline,
            client=client,
        )  # fmt: skip
        generator, sequence = self.bundle.manifest.generator, None
        ahead: AheadStream | None = None
        if query.options.latent_source == "mt19937" and query.latents is None:
            ahead = sequence = Mt19937Stream(query, lane, generator.z_dim)
        stream = self.streams[lane] = Stream(query, lane, sequence, span)
        if query.screen is not None:
            ahead = Screening(
                query.screen, lane, query.options, self.mapping, generator, stream.stop
            )
        if ahead is not None:
            self.ahead.add(ahead)
        self.metrics.streams.inc()
        try:
            self.scheduler.add(lane, time.monotonic())
            self._show_waiting()
            yield stream
        finally:
            self.scheduler.remove(lane)
            if ahead is not None:
                self.ahead.remove(ahead)
            self._show_waiting()
            del self.streams[lane]
            self.metrics.streams.dec()
            if not self.streams:
                self.idle.set()

    async def draws(self, capacity: int) -> list[Draw]:
        """Rows of the next engine batch, at most `capacity`; waits until there are any."""
        await self._gather(capacity)
        while not (draws := self.scheduler.draw(capacity, time.monotonic())):
            await self.scheduler.work.wait()
            await self._gather(capacity)
        now = time.monotonic()
        self.ahead.wake()
        self._show_waiting()
        for draw in draws:
            self.metrics.queue_seconds.observe(now - draw.since)
        return draws

    def ready(self, lane: Lane, now: float) -> None:
        """Call it when work ahead of a lane has come further."""
        self.scheduler.wake(lane, now)
        stream = self.streams.get(lane)
        if stream is not None:
            stream.ready()

    def _show_waiting(self) -> None:
        waiting = self.scheduler.waiting()
        self.metrics.waiting.inc(waiting - self._shown)
        self._shown = waiting

    async def _gather(self, capacity: int) -> None:
        """Waits up to `batch_delay_s` while rows are waiting but do not fill a batch."""
        until = time.monotonic() + self.batch_delay_s
        while 0 < self.scheduler.waiting() < capacity and time.monotonic() < until:
            await asyncio.sleep(self.batch_delay_s / DELAY_STEPS)

    def sent(self, stream: Stream, message: Message, message_bytes: int) -> None:
        """Records that a message was sent, so that its stream may draw more rows."""
        now = time.monotonic()
        stream.sent(message)
        self.scheduler.wake(stream.lane, now)
        self.metrics.kept.inc(message.size)
        for reason, counter in self.metrics.discarded.items():
            counter.inc(getattr(message.reasons, reason))
        self.metrics.message_bytes.inc(message_bytes)
        if message.kept:
            self.metrics.message_seconds.observe(now - min(kept.since for kept in message.kept))

    async def end(self, why: NotServing, grace_s: float) -> None:
        """Lets streams go on for `grace_s` seconds, then ends them before their next message."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._without_streams(), grace_s)
        self.ended = why
        for stream in self.streams.values():
            stream.stop(why)

    def lose(self, error: DeviceLost) -> None:
        """Ends all streams before their next message and refuses new ones, because the device
        failed; clients can resume at another replica."""
        if not self.lost:
            _log.error("model %s lost its device: %s", self.name, error)
        self.lost = True
        self.metrics.lost.set(1)
        self.ended = NotServing(
            f"model {self.name} lost its device on this server; resume from next_index at another "
            "replica"
        )
        for stream in self.streams.values():
            stream.stop(self.ended)

    async def _without_streams(self) -> None:
        while self.streams:
            self.idle.clear()
            await self.idle.wait()

    def stop(self) -> None:
        """Ends the runs under way where the runtime can; their results are lost."""
        self.mapping.stop()
        for engine in self.engines:
            engine.stop()

    def close(self) -> None:
        """Frees engines and mapping; call it only when nothing runs on them.

        A stream whose reader has stopped may hold this object for longer.
        """
        self.mapping_thread.shutdown()
        self.ahead.close()
        self.mapping.close()
        for engine in self.engines:
            engine.close()
