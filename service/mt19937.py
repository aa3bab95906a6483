"""Latents of MT19937 streams, drawn ahead of the mapping network, see ahead.

MT19937 cannot jump: the row of index 999,999 costs all rows before it, ten seconds and more. So a
stream's rows are drawn TURN_NUMBERS at a time, and its lane may draw an ordinal once its row is
ready; streams of other latents never wait for any of this.
"""

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
        self._ready = lane.ready = lane.drawn
        self._plan = query.plan
        self._source = Mt19937Rows(query.options.seed, z_dim)
        self._turn_rows = max(1, TURN_NUMBERS // z_dim)
        self._next = 0  # index of the row that the source draws next
        self._rows: dict[int, NDArray[np.float32]] = {}  # by index

    def wanted(self, now: float) -> int:
        """Number of rows to draw now: those of the ordinals that may be under way next."""
        if not self.lane.is_live(now):
            return 0
        return min(self._plan.stop, self.lane.drawn + self.lane.window) - self._ready

    def turn(self, count: int) -> None:
        """One turn towards the next `count` rows."""
        indices = self._plan.indices(self._ready, count)
        end = self._next + self._turn_rows
        near = indices[indices < end]
        if not len(near):
            self._source.rows([end - 1])  # a part of the gap
            self._next = end
            return
        rows = self._source.rows(near)
        self._next = int(near[-1]) + 1
        self._rows.update(zip(near.tolist(), rows, strict=True))
        self._ready += len(near)

    def turned(self) -> None:
        """Lets the lane draw the rows that are ready."""
        self.lane.ready = self._ready

    def rows(self, indices: npt.ArrayLike) -> NDArray[np.float32]:
        """Rows that are ready, each handed out once: float32 [n, z_dim]."""
        return np.stack([self._rows.pop(index) for index in np.asarray(indices).tolist()])
