"""Outcomes of engine batches, in any order -> resumable chunks of one stream, in index order."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmint.latents import Mt19937Rows
from service.query import Query
from service.sampler import Plan
from service.scheduler import Lane
from service.tracing import INVALID_SPAN, Span

HEARTBEAT_EXAMINED = 256  # an empty message at the latest after so many indices,
HEARTBEAT_S = 1.0  # or so many seconds

Arrays = dict[str, NDArray[np.generic]]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Outcome:
    """What became of ordinals first to first + count - 1 of a stream."""

    first: int
    count: int
    rows: Positions  # those that passed the filter, counted from first, ascending
    arrays: Arrays  # of those rows, by output name
    since: float  # when these rows began to wait for the engine
    error: Exception | None = None


@dataclass(frozen=True)
class Piece:
    """Samples of one outcome."""

    arrays: Arrays
    picks: Positions  # which of the arrays' samples, ascending
    ordinals: list[int]
    indices: NDArray[np.uint64]
    since: float

    def split(self, size: int) -> tuple["Piece", "Piece"]:
        """The first `size` samples, and the others."""
        return self._slice(slice(0, size)), self._slice(slice(size, None))

    def _slice(self, s: slice) -> "Piece":
        return Piece(self.arrays, self.picks[s], self.ordinals[s], self.indices[s], self.since)


@dataclass(frozen=True)
class Chunk:
    """What one message says; without pieces, a heartbeat."""

    pieces: tuple[Piece, ...]
    next_index: int
    discarded: int

    @property
    def size(self) -> int:
        return sum(len(piece.picks) for piece in self.pieces)


class Stream:
    """One stream's undelivered samples and its position; lives on the event loop."""

    def __init__(
        self,
        query: Query,
        lane: Lane,
        mt19937: Mt19937Rows | None = None,
        span: Span = INVALID_SPAN,
    ) -> None:
        self.query, self.lane, self.span = query, lane, span
        self.mt19937 = mt19937  # the stream's own position in that sequence
        self._plan = query.plan
        self._early: dict[int, Outcome] = {}  # arrived before their turn, by first ordinal
        self._arrived = self._plan.first  # outcomes of ordinals under this were taken in
        self._undecided: list[Outcome] = []  # those with views of an object that is not whole yet
        self._pieces: deque[Piece] = deque()
        self._frontier = self._plan.first  # ordinals under this are decided
        self._told = self._plan.first  # ordinals under this were in a chunk
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether everything asked for is decided."""
        return self._frontier >= self._plan.stop or self.counted

    @property
    def counted(self) -> bool:
        """Whether `count` samples were kept."""
        return 0 < self.query.count <= self.lane.kept

    @property
    def finished(self) -> bool:
        """Whether everything asked for is in chunks."""
        return self.complete and not self._pieces and self._told == self._frontier

    def settle(self, outcome: Outcome) -> None:
        """Takes in one outcome; whatever is behind an error or the count is dropped."""
        self._early[outcome.first] = outcome
        while not self._error and not self.counted and self._arrived in self._early:
            self._take_in(self._early.pop(self._arrived))
        self._changed.set()

    def stop(self, error: Exception) -> None:
        """Ends the stream before its next message; what was not sent is dropped."""
        self._pieces.clear()
        self._error = error
        self._changed.set()

    async def next_chunk(self, size: int) -> Chunk | None:
        """The next chunk of at most `size` samples, or a heartbeat; None at the end.

        Raises what ended the stream early.
        """
        await self._wait_for(self._has_news, HEARTBEAT_S)
        if not self._pieces:
            self._check()
            if self.finished:
                return None
            return self._chunk([], min(self._frontier, self._told + HEARTBEAT_EXAMINED))
        taken = self._take_pieces(size)
        return self._chunk(taken, taken[-1].ordinals[-1] + 1 if self._pieces else self._frontier)

    async def wait_complete(self) -> None:
        """Returns when everything asked for is decided; raises what ended the stream early."""
        await self._wait_for(lambda: self.complete or self._error is not None, None)
        self._check()

    def rest(self) -> Chunk:
        """All samples there are, in one chunk."""
        pieces, self._pieces = list(self._pieces), deque()
        return self._chunk(pieces, self._frontier)

    def sent(self, chunk: Chunk) -> None:
        """The chunk's samples no longer count against the window."""
        self.lane.unsent -= chunk.size

    def _chunk(self, pieces: list[Piece], upto: int) -> Chunk:
        """These samples, and everything under `upto` examined."""
        examined = self._plan.examined(upto) - self._plan.examined(self._told)
        self._told = upto
        kept = sum(len(piece.picks) for piece in pieces)
        return Chunk(tuple(pieces), self._plan.next_index(upto), examined - kept)

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Returns when the condition holds, or after the timeout."""
        while True:
            self._changed.clear()
            if condition():
                return
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except asyncio.TimeoutError:
                return

    def _check(self) -> None:
        """Raises what ended the stream early."""
        if self._error:
            raise self._error

    def _has_news(self) -> bool:
        silent = self._frontier - self._told >= HEARTBEAT_EXAMINED
        return bool(self._pieces or self._error or self.complete or silent)

    def _take_pieces(self, size: int) -> list[Piece]:
        taken: list[Piece] = []
        while self._pieces and size > 0:
            piece = self._pieces.popleft()
            if len(piece.picks) > size:
                piece, rest = piece.split(size)
                self._pieces.appendleft(rest)
            taken.append(piece)
            size -= len(piece.picks)
        return taken

    def _take_in(self, outcome: Outcome) -> None:
        if outcome.error:
            self._error = outcome.error
            return
        self._arrived += outcome.count
        self._undecided.append(outcome)
        decided = self._arrived // self._plan.unit * self._plan.unit
        pieces = _decided_pieces(self._plan, self._undecided, self._frontier, decided)
        self._undecided = [o for o in self._undecided if o.first + o.count > decided]
        rows, self._frontier = decided - self._frontier, decided
        kept = sum(len(piece.picks) for piece in pieces)
        surplus = self.lane.kept + kept - self.query.count if self.query.count else 0
        if surplus >= 0 and self.query.count:
            pieces = _without_last(pieces, surplus)
            kept -= surplus
            self._frontier = pieces[-1].ordinals[-1] + 1
        self.lane.decide(rows, kept)
        self._pieces.extend(pieces)


def _decided_pieces(
    plan: Plan, outcomes: Sequence[Outcome], frontier: int, decided: int
) -> list[Piece]:
    """The kept samples of ordinals [frontier, decided), whole objects where the plan has them."""
    offsets = [outcome.first - frontier + outcome.rows for outcome in outcomes]
    passed = np.ones(decided - frontier, np.bool_)
    if plan.unit > 1:
        together = np.concatenate(offsets)
        together = together[(together >= 0) & (together < decided - frontier)]
        views = np.bincount(together // plan.unit, minlength=(decided - frontier) // plan.unit)
        passed = np.repeat(views == plan.unit, plan.unit)
    pieces = []
    for outcome, offset in zip(outcomes, offsets, strict=True):
        mine = (offset >= 0) & (offset < decided - frontier)
        mine[mine] = passed[offset[mine]]
        if plan.unit > 1:
            mine &= plan.wanted(outcome.first, outcome.count)[outcome.rows]
        if mine.any():
            pieces.append(_piece(plan, outcome, np.flatnonzero(mine)))
    return pieces


def _piece(plan: Plan, outcome: Outcome, picks: Positions) -> Piece:
    rows = outcome.rows[picks]
    return Piece(
        arrays=outcome.arrays,
        picks=picks,
        ordinals=[outcome.first + int(row) for row in rows],  # may exceed 64-bit signed
        indices=plan.indices(outcome.first, outcome.count)[rows],
        since=outcome.since,
    )


def _without_last(pieces: list[Piece], surplus: int) -> list[Piece]:
    """The pieces without their last `surplus` samples."""
    pieces = list(pieces)
    while surplus:
        last = pieces.pop()
        keep = max(0, len(last.picks) - surplus)
        surplus -= len(last.picks) - keep
        if keep:
            pieces.append(last.split(keep)[0])
    return pieces
