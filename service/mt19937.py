"""Latents of MT19937 streams: drawn ahead of the mapping network, in turns, on their own thread.

MT19937 cannot jump: the row of index 999,999 costs all rows before it, ten seconds and more. So a
stream's rows are drawn here first, TURN_NUMBERS at a time, and its lane may draw an ordinal
once its row is ready. Clients take turns, and so do the streams of a client; streams of other
latents never wait for any of this, and a stream that ends costs no further turn.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from labelmint.latents import Mt19937Rows
from service.query import Query
from service.scheduler import Lane

TURN_NUMBERS = 1 << 20  # normals drawn in one turn: about 20 ms


class Mt19937Stream:
    """One stream's position in its sequence, and its rows that are ready and not yet mapped."""

    def __init__(self, query: Query, lane: Lane, z_dim: int) -> None:
        """`lane` may draw nothing until rows are ready."""
        self.lane = lane
        lane.ready = lane.drawn
        self._plan = query.plan
        self._source = Mt19937Rows(query.options.seed, z_dim)
        self._turn_rows = max(1, TURN_NUMBERS // z_dim)
        self._next = 0  # index of the row that the source draws next
        self._rows: dict[int, NDArray[np.float32]] = {}  # by index

    def wanted(self, now: float) -> int:
        """Number of rows to draw now: those of the ordinals that may be under way next."""
        if not self.lane.is_live(now) or self.lane.ready is None:
            return 0
        return min(self._plan.stop, self.lane.drawn + self.lane.window) - self.lane.ready

    def draw_ahead(self, count: int) -> int:
        """One turn towards the next `count` rows; returns how many of them became ready."""
        assert self.lane.ready is not None  # set in __init__
        indices = self._plan.indices(self.lane.ready, count)
        end = self._next + self._turn_rows
        near = indices[indices < end]
        if not len(near):
            self._source.rows([end - 1])  # a part of the gap
            self._next = end
            return 0
        rows = self._source.rows(near)
        self._next = int(near[-1]) + 1
        self._rows.update(zip(near.tolist(), rows, strict=True))
        return len(near)

    def rows(self, indices: npt.ArrayLike) -> NDArray[np.float32]:
        """Rows that are ready, each handed out once: float32 [n, z_dim]."""
        return np.stack([self._rows.pop(index) for index in np.asarray(indices).tolist()])


class Mt19937Ahead:
    """The MT19937 streams of one model, by client; the first client's turn is next."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Mt19937Stream]] = OrderedDict()
        self._work = asyncio.Event()  # set when some stream may want rows
        self._thread = ThreadPoolExecutor(1, "mt19937")

    def add(self, stream: Mt19937Stream) -> None:
        """Draws for this stream too, from now on."""
        self._clients.setdefault(stream.lane.client, deque()).append(stream)
        self._work.set()

    def remove(self, stream: Mt19937Stream) -> None:
        """Draws nothing more for this stream."""
        streams = self._clients[stream.lane.client]
        streams.remove(stream)
        if not streams:
            del self._clients[stream.lane.client]

    def wake(self) -> None:
        """Call it whenever lanes have drawn."""
        self._work.set()

    async def run(self, wake: Callable[[Lane, float], None]) -> None:
        """Draws until cancelled; calls `wake` with a lane whose rows became ready, and the time."""
        loop = asyncio.get_running_loop()
        while True:
            self._work.clear()
            while turn := self._next_turn(time.monotonic()):
                stream, wanted = turn
                ready = await loop.run_in_executor(self._thread, stream.draw_ahead, wanted)
                stream.lane.ready = (stream.lane.ready or 0) + ready
                if not stream.lane.closed:
                    wake(stream.lane, time.monotonic())
            await self._work.wait()

    def close(self) -> None:
        """Waits for the turn under way, then ends the thread."""
        self._thread.shutdown()

    def _next_turn(self, now: float) -> tuple[Mt19937Stream, int] | None:
        """The stream whose turn it is, of those that want rows, and how many it wants."""
        for client, streams in list(self._clients.items()):
            self._clients.move_to_end(client)
            for _ in range(len(streams)):
                stream = streams[0]
                streams.rotate(-1)
                if (wanted := stream.wanted(now)) > 0:
                    return stream, wanted
        return None
