"""Work on streams' latents ahead of the mapping of their draws, in turns, on one thread.

Some streams know which rows they can draw only after work that other streams need not wait for:
MT19937 draws all rows before one, a proposal examines a thousand indices for one. That work is done
here, a turn of about 20 ms at a time, and a lane may draw an ordinal once it is ready. Clients take
turns, and so do the streams of a client; a stream that ends costs no further turn.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from service.scheduler import Lane


class AheadStream(Protocol):
    """One stream's work ahead."""

    @property
    def lane(self) -> Lane:
        """Its counters; `ready` is how far it may draw."""

    def wanted(self, now: float) -> int:
        """Number of rows that should become ready, 0 or less: none now."""

    def turn(self, count: int) -> None:
        """One turn towards `count` more rows; runs on the thread."""

    def turned(self) -> None:
        """Makes the rows of the last turn ready; runs on the event loop."""


class Ahead:
    """The streams of one model that have such work, by client; the first client's turn is next."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[AheadStream]] = OrderedDict()
        self._work = asyncio.Event()  # set when some stream may want rows
        self._thread = ThreadPoolExecutor(1, "ahead")

    @property
    def streams(self) -> int:
        """Number of streams."""
        return sum(map(len, self._clients.values()))

    def add(self, stream: AheadStream) -> None:
        """Works for this stream too, from now on."""
        self._clients.setdefault(stream.lane.client, deque()).append(stream)
        self._work.set()

    def remove(self, stream: AheadStream) -> None:
        """Does nothing more for this stream."""
        streams = self._clients[stream.lane.client]
        streams.remove(stream)
        if not streams:
            del self._clients[stream.lane.client]

    def wake(self) -> None:
        """Call it whenever lanes have drawn, or their windows have become free."""
        self._work.set()

    async def run(self, wake: Callable[[Lane, float], None]) -> None:
        """Works until cancelled; calls `wake` with a lane whose rows became ready, and the time."""
        loop = asyncio.get_running_loop()
        while True:
            self._work.clear()
            while turn := self._next_turn(time.monotonic()):
                stream, wanted = turn
                await loop.run_in_executor(self._thread, stream.turn, wanted)
                if not stream.lane.closed:
                    stream.turned()
                    wake(stream.lane, time.monotonic())
            await self._work.wait()

    def close(self) -> None:
        """Waits for the turn under way, then ends the thread."""
        self._thread.shutdown()

    def _next_turn(self, now: float) -> tuple[AheadStream, int] | None:
        """The stream whose turn it is, of those that want rows, and how many it wants."""
        for client, streams in list(self._clients.items()):
            self._clients.move_to_end(client)
            for _ in range(len(streams)):
                stream = streams[0]
                streams.rotate(-1)
                if (wanted := stream.wanted(now)) > 0:
                    return stream, wanted
        return None
