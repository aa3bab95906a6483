"""Which streams' rows the next engine batch holds: round robin over clients, and over the lanes
of each client by weight.

Enter: lanes, each the counters of one stream. Leave: `Draw`s, runs of ordinals to compute; no
latents and no tensors. A lane may draw while the rows under way fit its window, so a slow reader
stops its own lane and no other. Every client has the same share, however many lanes it opens and
whatever weights it asks for.
"""

import asyncio
import math
from collections import OrderedDict, deque
from dataclasses import dataclass


@dataclass(eq=False)
class Lane:
    """The counters of one stream; positions are ordinals, see sampler.

    decided <= drawn <= stop. Rows from `decided` to `drawn` are with the engine or wait for the
    other views of their object.
    """

    drawn: int  # next ordinal to draw
    stop: int  # end of the plan, exclusive
    unit: int  # number of ordinals that are kept or rejected together
    window: int  # most samples under way: drawn and undecided, or kept and unsent
    count: int = 0  # most samples to keep; 0: no limit
    weight: int = 1  # share of its client's part of the engine, relative to its other lanes
    deadline: float = math.inf  # on the scheduler's clock; rows computed later are wasted
    decided: int = 0  # every ordinal under this is kept or rejected; begins at `drawn`
    decided_rows: int = 0  # number of rows kept or rejected
    kept: int = 0  # number of rows kept
    unsent: int = 0  # number of kept samples not yet handed to gRPC
    turn_left: int = 0  # rows left of its turn, in which a full batch interrupted it
    client: str = ""  # whose lane it is
    ready: int | None = None  # ordinals under this can be drawn; None: all, see mt19937
    closed: bool = False
    waiting_since: float | None = None  # when it became drawable; None when it is not

    def __post_init__(self) -> None:
        self.decided = self.drawn

    def drawable(self) -> int:
        """Number of rows this lane may draw now."""
        free = self.window - self.unsent
        if self.count:
            free = min(free, self._rows_for_count())
        if free <= 0:
            return 0
        limit = -(-(self.decided + free) // self.unit) * self.unit  # only whole objects get decided
        stop = self.stop if self.ready is None else min(self.stop, self.ready)
        return max(0, min(limit, stop) - self.drawn)

    def is_live(self, now: float) -> bool:
        """Whether a reader still waits for its rows: not closed, and before its deadline."""
        return not self.closed and now <= self.deadline

    def decide(self, rows: int, kept: int) -> None:
        """Counts the next `rows` ordinals as decided, `kept` of them as kept and unsent."""
        self.decided += rows
        self.decided_rows += rows
        self.kept += kept
        self.unsent += kept

    def _rows_for_count(self) -> int:
        """Rows likely to give the samples missing from `count`, at the share kept so far."""
        missing = self.count - self.kept
        return -(-missing * (self.decided_rows + 1) // (self.kept + 1))


@dataclass(frozen=True)
class Draw:
    """A lane's share of one engine batch: ordinals first to first + count - 1."""

    lane: Lane
    first: int
    count: int
    since: float  # when the lane could have drawn these rows


class _Client:
    """The lanes of one client; the first one's turn is next."""

    def __init__(self) -> None:
        self.lanes: deque[Lane] = deque()
        self.turn_left = 0  # rows left of its turn, in which a full batch interrupted it

    def draw(self, most: int, quarter: int, now: float, first_ordinals: dict[Lane, int]) -> int:
        """Draws up to `most` rows, in turns of `quarter` rows times the lane's weight.

        Returns how many were drawn; adds the lanes' first ordinals.
        """
        left, idle_turns = most, 0  # turns since a lane last drew
        while left and idle_turns < len(self.lanes):
            lane = self.lanes[0]
            lane.turn_left = lane.turn_left or quarter * lane.weight
            rows = min(left, lane.turn_left, lane.drawable() if lane.is_live(now) else 0)
            if rows:
                first_ordinals.setdefault(lane, lane.drawn)
                lane.drawn += rows
                lane.turn_left -= rows
                left -= rows
            idle_turns = 0 if rows else idle_turns + 1
            turn_is_over = left > 0 or lane.turn_left == 0
            if turn_is_over:
                lane.turn_left = 0
                self.lanes.rotate(-1)
        return most - left


class Scheduler:
    """The lanes of one model, by client, in turn."""

    def __init__(self) -> None:
        self.work = asyncio.Event()  # set when some lane may have rows to draw
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # the first one's turn is next

    @property
    def lanes(self) -> list[Lane]:
        """All lanes that are not removed."""
        return [lane for client in self._clients.values() for lane in client.lanes]

    def add(self, lane: Lane, now: float) -> None:
        self._clients.setdefault(lane.client, _Client()).lanes.append(lane)
        self.wake(lane, now)

    def remove(self, lane: Lane) -> None:
        """Closes a lane: none of its rows are computed from now on."""
        lane.closed = True
        client = self._clients.get(lane.client)
        if client is not None and lane in client.lanes:
            client.lanes.remove(lane)
            if not client.lanes:
                del self._clients[lane.client]

    def wake(self, lane: Lane, now: float) -> None:
        """Call it whenever a lane may have become drawable."""
        if lane.drawable():
            lane.waiting_since = now if lane.waiting_since is None else lane.waiting_since
            self.work.set()

    def waiting(self) -> int:
        """Number of rows that lanes could draw now."""
        return sum(lane.drawable() for lane in self.lanes)

    def draw(self, capacity: int, now: float) -> list[Draw]:
        """Draws up to `capacity` rows, in turns of a quarter batch for each client.

        Within its turns, a client's lanes have turns of a quarter batch times their weight.
        Example: capacity 8, so a quarter is 2 rows, and three lanes of one client. A and C have
        many rows to draw, B has one, and C has weight 2:

            turn of       A   B   C   A
            rows drawn    2   1   4   1     the batch is full, and cuts A's second turn short
            capacity left 6   5   1   0

        The draws are A 3, B 1, C 4; the next batch begins with A and the 1 row left of its turn.

        A turn is a quarter batch and not a row: fewer lanes in a batch means fewer calls of the
        mapping network and larger messages, and over a few batches the same share for each lane.
        """
        quarter = max(1, capacity // 4)
        first_ordinals: dict[Lane, int] = {}  # first ordinal of each lane that draws
        idle_turns = 0  # since a client last drew
        while capacity and idle_turns < len(self._clients):
            name, client = next(iter(self._clients.items()))
            client.turn_left = client.turn_left or quarter
            rows = client.draw(min(capacity, client.turn_left), quarter, now, first_ordinals)
            client.turn_left -= rows
            capacity -= rows
            idle_turns = 0 if rows else idle_turns + 1
            turn_is_over = capacity > 0 or client.turn_left == 0
            if turn_is_over:
                client.turn_left = 0
                self._clients.move_to_end(name)
        if not first_ordinals:
            self.work.clear()
        return [_draw(lane, first, now) for lane, first in first_ordinals.items()]


def _draw(lane: Lane, first: int, now: float) -> Draw:
    """The draw of a lane that has just drawn the ordinals from `first` to `lane.drawn`."""
    since = now if lane.waiting_since is None else lane.waiting_since
    lane.waiting_since = now if lane.drawable() else None
    return Draw(lane, first, lane.drawn - first, since)
