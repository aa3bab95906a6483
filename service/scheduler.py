"""Whose rows the next engine batch holds: weighted round robin over lanes, counts only.

A lane is a stream as the scheduler sees it: a run of ordinals, of which so many are drawn, so
many decided (kept or discarded), and so many kept ones wait for their reader. It may draw while
what is under way fits its window, so a slow reader stops its own lane and no other.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass


@dataclass(eq=False)
class Lane:
    """One stream's counters; all ordinals, see sampler."""

    drawn: int  # next ordinal to draw
    stop: int  # end of the plan
    unit: int  # ordinals decided together
    window: int  # most samples under way: drawn and undecided, or kept and unsent
    count: int = 0  # most samples to keep, 0: endless
    weight: int = 1  # of its share, relative to other lanes that wait
    deadline: float = math.inf  # on the scheduler's clock; work after it is wasted
    decided: int = 0  # ordinals under this are kept or discarded; set from drawn
    rows: int = 0  # decided so far
    kept: int = 0  # of those, kept
    unsent: int = 0  # of those, not yet handed to gRPC
    turn: int = 0  # rows left of its turn
    closed: bool = False
    waiting_since: float | None = None  # since when it may draw and did not

    def __post_init__(self) -> None:
        self.decided = self.drawn

    def drawable(self) -> int:
        """Rows this lane may draw now."""
        room = self.window - self.unsent
        if self.count:
            room = min(room, self._rows_for_count())
        if room <= 0:
            return 0
        limit = -(-(self.decided + room) // self.unit) * self.unit  # whole objects get decided
        return max(0, min(limit, self.stop) - self.drawn)

    def wanted(self, now: float) -> bool:
        """Whether anyone still waits for what it draws."""
        return not self.closed and now <= self.deadline

    def decide(self, rows: int, kept: int) -> None:
        """So many further ordinals are decided, so many of them kept for the reader."""
        self.decided += rows
        self.rows += rows
        self.kept += kept
        self.unsent += kept

    def _rows_for_count(self) -> int:
        """Rows that should give what is missing at the rate of keeping seen so far."""
        missing = self.count - self.kept
        return -(-missing * (self.rows + 1) // (self.kept + 1))


@dataclass(frozen=True)
class Draw:
    """A lane's share of one engine batch: ordinals first to first + count - 1."""

    lane: Lane
    first: int
    count: int
    since: float  # when the lane could have drawn these rows


class Scheduler:
    """The lanes of one model, in turn."""

    def __init__(self) -> None:
        self.work = asyncio.Event()  # set when some lane may have rows to draw
        self._lanes: deque[Lane] = deque()

    def add(self, lane: Lane, now: float) -> None:
        self._lanes.append(lane)
        self.wake(lane, now)

    def remove(self, lane: Lane) -> None:
        """Nothing of this lane is computed from now on."""
        lane.closed = True
        if lane in self._lanes:
            self._lanes.remove(lane)

    def wake(self, lane: Lane, now: float) -> None:
        """To be called whenever a lane may have become drawable."""
        if lane.drawable():
            lane.waiting_since = now if lane.waiting_since is None else lane.waiting_since
            self.work.set()

    def waiting(self) -> int:
        """Rows that lanes could draw now."""
        return sum(lane.drawable() for lane in self._lanes)

    def draw(self, capacity: int, now: float) -> list[Draw]:
        """Fills one batch: each lane in turn gets a quarter batch by its weight, then what is left.

        A quarter and not a row: fewer lanes per batch means fewer calls of the mapping, larger
        messages, and over a few batches the same share for everyone.
        """
        quantum = max(1, capacity // 4)
        shares: dict[Lane, tuple[int, int]] = {}  # first ordinal, count
        idle = 0
        while capacity and idle < len(self._lanes):
            lane = self._lanes[0]
            lane.turn = (
                lane.turn or quantum * lane.weight
            )  # what is left of a turn that a batch cut short
            taken = min(capacity, lane.turn, lane.drawable() if lane.wanted(now) else 0)
            if taken:
                first, count = shares.get(lane, (lane.drawn, 0))
                shares[lane] = (first, count + taken)
                lane.drawn += taken
                lane.turn -= taken
                capacity -= taken
            idle = 0 if taken else idle + 1
            if capacity or not lane.turn:
                lane.turn = 0
                self._lanes.rotate(-1)
        if not shares:
            self.work.clear()
        return [_draw(lane, first, count, now) for lane, (first, count) in shares.items()]


def _draw(lane: Lane, first: int, count: int, now: float) -> Draw:
    since = now if lane.waiting_since is None else lane.waiting_since
    lane.waiting_since = now if lane.drawable() else None
    return Draw(lane, first, count, since)
