"""One stream's samples between the engine and the wire: filtered rows -> resumable messages.

Enter: `FilteredRows`, one for each draw, in whatever order engines finish. Leave: `Message`s of
`KeptSamples`, in index order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.discards import Discards, Reasons
from service.mt19937 import Mt19937Stream
from service.query import Query
from service.sampler import Plan
from service.scheduler import Lane
from service.tracing import INVALID_SPAN, Span

# A message without samples (a heartbeat) is sent once this many indices were examined since the
# last message, or after this time without a message.
HEARTBEAT_EXAMINED = 256
HEARTBEAT_S = 1.0

Arrays = dict[str, NDArray[np.generic]]
Offsets = NDArray[np.intp]


@dataclass(frozen=True)
class FilteredRows:
    """What the engine and its filter made of a draw: ordinals first to first + count - 1."""

    first: int
    count: int
    passed: Offsets  # rows that passed the filter, counted from `first`, ascending
    arrays: Arrays  # outputs of the passed rows by name, each [len(passed), ...]
    since: float  # when these rows began to wait for the engine
    error: Exception | None = None  # ends the stream before ordinal `first`
    # What the stream's predicate compares, of all rows, [count, S]; None: it has no predicate.
    content: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class KeptSamples:
    """Samples that passed the filter and are delivered, all from one draw.

    They share the arrays of their FilteredRows; nothing is copied until a message is encoded.
    """

    arrays: Arrays  # by output name, each [passed rows, ...]
    picks: Offsets  # rows of the arrays that are these samples, ascending
    ordinals: list[int]  # ordinal of each sample
    indices: NDArray[np.uint64]  # raw index of each sample
    since: float  # as in FilteredRows

    def __len__(self) -> int:
        return len(self.picks)

    def split(self, size: int) -> tuple["KeptSamples", "KeptSamples"]:
        """The first `size` samples, and the others."""
        return self._slice(slice(0, size)), self._slice(slice(size, None))

    def _slice(self, s: slice) -> "KeptSamples":
        return KeptSamples(
            self.arrays, self.picks[s], self.ordinals[s], self.indices[s], self.since
        )


@dataclass(frozen=True)
class Message:
    """What one StreamSamplesResponse says; a heartbeat when it has no samples."""

    kept: tuple[KeptSamples, ...]
    next_index: int  # raw index at which to resume after this message
    discarded: int  # number of examined samples that were rejected since the last message
    reasons: Reasons  # why those were

    @property
    def size(self) -> int:
        """Number of samples."""
        return _total(self.kept)

    def without_arrays(self) -> "Message":
        """What is left to report of a message that was encoded.

        An array may be a view of memory of its engine's runtime, which then keeps all of that.
        """
        return replace(self, kept=tuple(replace(kept, arrays={}) for kept in self.kept))


class Stream:
    """The position of one stream and its undelivered samples; used on the event loop only.

    Positions are ordinals, in this order; each moves to the right:

      plan.first    reported       decided         arrived          lane.drawn      plan.stop
          |------------|--------------|---------------|-----------------|---------------|
          | sent in a  | kept or      | filtered, but | with the engine,| not drawn yet |
          | message    | rejected,    | their object  | or filtered     |               |
          |            | not sent yet | is incomplete | ("early")       |               |

    A row is early when rows before it have not arrived. Without filter_sets an object is one row,
    and `decided` is where `arrived` is, until the count is reached.
    """

    def __init__(
        self,
        query: Query,
        lane: Lane,
        mt19937: Mt19937Stream | None = None,
        span: Span = INVALID_SPAN,
    ) -> None:
        self.query, self.lane, self.span = query, lane, span
        self.mt19937 = mt19937  # draws its latents, if they are from that sequence
        self._plan = query.plan
        self._early: dict[int, FilteredRows] = {}  # by first ordinal
        self._arrived = self._plan.first
        self._undecided: list[FilteredRows] = []  # those that reach past `decided`
        self._decided = self._plan.first
        self._kept: deque[KeptSamples] = deque()  # between `reported` and `decided`
        self._reported = self._plan.first
        self._examined = 0  # number of requested indices that messages have reported
        self._error: Exception | None = None
        self._discards = Discards(query)
        self._changed = asyncio.Event()
        self.on_stop: Callable[[Exception], None] | None = None  # ends what waits for its reader

    @property
    def complete(self) -> bool:
        """Whether every requested sample is kept or rejected."""
        return self._decided >= self._plan.stop or self.count_reached

    @property
    def count_reached(self) -> bool:
        """Whether `count` samples were kept."""
        return 0 < self.query.count <= self.lane.kept

    @property
    def finished(self) -> bool:
        """Whether the stream is complete and all of it is in messages."""
        examined, _, _ = self._position(self._decided)
        return self.complete and not self._kept and self._examined == examined

    def add(self, filtered: FilteredRows) -> None:
        """Takes the filtered rows of one draw; rows behind an error or the count are dropped."""
        if not self._error:
            self._early[filtered.first] = filtered
        while not self._error and not self.count_reached and self._arrived in self._early:
            self._take_in(self._early.pop(self._arrived))
        self._changed.set()

    def ready(self) -> None:
        """Call it when indices may have been examined that no draw will compute."""
        if self.complete:
            self._changed.set()

    def stop(self, error: Exception) -> None:
        """Ends the stream before its next message; samples that were not sent are dropped."""
        self._kept.clear()
        self._early.clear()
        self._undecided.clear()
        self._error = error
        self._changed.set()
        if self.on_stop is not None:
            self.on_stop(error)

    async def next_message(self, size: int) -> Message | None:
        """The next message of at most `size` samples, or a heartbeat; None at the end.

        Raises the error that ended the stream early.
        """
        await self._wait_for(self._has_news, HEARTBEAT_S)
        if not self._kept:
            self._raise_error()
            if self.finished:
                return None
            return self._message([], min(self._decided, self._reported + HEARTBEAT_EXAMINED))
        kept = self._take_kept(size)
        return self._message(kept, kept[-1].ordinals[-1] + 1 if self._kept else self._decided)

    async def wait_complete(self) -> None:
        """Returns when the stream is complete; raises the error that ended it early."""
        await self._wait_for(lambda: self.complete or self._error is not None, None)
        self._raise_error()

    def rest(self) -> Message:
        """All samples not yet in a message, in one message."""
        kept, self._kept = list(self._kept), deque()
        return self._message(kept, self._decided)

    def sent(self, message: Message) -> None:
        """Frees the message's samples from the stream's window."""
        self.lane.unsent -= message.size

    def _message(self, kept: list[KeptSamples], stop: int) -> Message:
        """A message of these samples that reports every ordinal under `stop`."""
        examined, next_index, end = self._position(stop)
        discarded = examined - self._examined - _total(kept)
        self._reported, self._examined = stop, examined
        reasons = self._discards.reasons(stop, discarded, _total(kept))
        if self.query.screen is not None:
            needed = min([stop, *(filtered.first for filtered in self._undecided)])
            self.query.screen.report(stop, end, needed)
        return Message(tuple(kept), next_index, discarded, reasons)

    def _position(self, stop: int) -> tuple[int, int, int]:
        """Number of requested indices that are decided when those under `stop` are, the index at
        which to resume then, and the end of their ordinals in the plan before a proposal."""
        plan, end, screen = self._plan, stop, self.query.screen
        if screen is not None:
            end = screen.end(stop, open_end=stop == self._decided and not self.count_reached)
            plan = screen.whole
        return plan.examined(end), plan.next_index(end), end

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Returns when the condition holds, or after the timeout, however often rows arrive."""
        now = asyncio.get_running_loop().time
        deadline = None if timeout_s is None else now() + timeout_s
        while not condition():
            self._changed.clear()
            left_s = None if deadline is None else deadline - now()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except asyncio.TimeoutError:
                return

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    def _has_news(self) -> bool:
        heartbeat_due = self._decided - self._reported >= HEARTBEAT_EXAMINED
        return bool(self._kept or self._error or self.complete or heartbeat_due)

    def _take_kept(self, size: int) -> list[KeptSamples]:
        """Removes up to `size` samples, the first ones."""
        taken: list[KeptSamples] = []
        while self._kept and size > 0:
            kept = self._kept.popleft()
            if len(kept) > size:
                kept, rest = kept.split(size)
                self._kept.appendleft(rest)
            taken.append(kept)
            size -= len(kept)
        return taken

    def _take_in(self, filtered: FilteredRows) -> None:
        """Moves `arrived` behind these rows, and `decided` to the last object boundary there."""
        if filtered.error:
            self._error = filtered.error
            return
        self._discards.add(filtered.first, filtered.count, filtered.passed, filtered.content)
        self._arrived += filtered.count
        self._undecided.append(filtered)
        boundary = self._arrived // self._plan.unit * self._plan.unit
        kept = _kept_samples(self._plan, self._undecided, self._decided, boundary)
        self._undecided = [f for f in self._undecided if f.first + f.count > boundary]
        self._decide(boundary, kept)
        if not self.complete:
            self._error = self._discards.unmet_error()

    def _decide(self, boundary: int, kept: list[KeptSamples]) -> None:
        """Moves `decided` to `boundary`, or right behind the sample that reaches the count."""
        rows, self._decided = boundary - self._decided, boundary
        surplus = self.lane.kept + _total(kept) - self.query.count
        if self.query.count and surplus >= 0:
            kept = _without_last(kept, surplus)
            self._decided = kept[-1].ordinals[-1] + 1
        self.lane.decide(rows, _total(kept))
        self._kept.extend(kept)


def _kept_samples(
    plan: Plan, undecided: Sequence[FilteredRows], start: int, stop: int
) -> list[KeptSamples]:
    """The kept samples of ordinals [start, stop), both object boundaries, by their draws.

    An object is kept when all of its plan.unit rows passed. Example: unit 3, start 0, stop 6, and
    two draws of 4 rows, A and B:

        ordinal     0  1  2    3  4  5    6  7
        draw        A  A  A    A  B  B    B  B
        passed      x  x  x    x  .  x    x  x
        object      kept       rejected   not decided: ordinal 8 has not arrived

    gives A's samples 0, 1 and 2. Rows that were computed for their object's sake only (see
    Plan.requested) are left out.
    """
    rows = stop - start
    offsets = [filtered.first - start + filtered.passed for filtered in undecided]  # from start
    object_passed = _rows_of_passed_objects(offsets, rows, plan.unit)
    kept = []
    for filtered, offset in zip(undecided, offsets, strict=True):
        mask = (offset >= 0) & (offset < rows)
        mask[mask] = object_passed[offset[mask]]
        if plan.unit > 1:
            mask &= plan.requested(filtered.first, filtered.count)[filtered.passed]
        if mask.any():
            kept.append(_picked_samples(plan, filtered, np.flatnonzero(mask)))
    return kept


def _rows_of_passed_objects(offsets: Sequence[Offsets], rows: int, unit: int) -> NDArray[np.bool_]:
    """Marks, [rows], the rows of objects of which all `unit` rows are among the offsets.

    With unit 1 every row is marked: the offsets themselves say which ones passed.
    """
    if unit == 1:
        return np.ones(rows, np.bool_)
    passed = np.concatenate(offsets)
    passed = passed[(passed >= 0) & (passed < rows)]
    views_passed = np.bincount(passed // unit, minlength=rows // unit)  # [objects]
    return np.repeat(views_passed == unit, unit)


def _picked_samples(plan: Plan, filtered: FilteredRows, picks: Offsets) -> KeptSamples:
    rows = filtered.passed[picks]
    return KeptSamples(
        arrays=filtered.arrays,
        picks=picks,
        ordinals=[filtered.first + int(row) for row in rows],  # may exceed a signed 64-bit integer
        indices=plan.indices(filtered.first, filtered.count)[rows],
        since=filtered.since,
    )


def _without_last(kept: Sequence[KeptSamples], surplus: int) -> list[KeptSamples]:
    """The samples without the last `surplus` of them."""
    left = list(kept)
    while surplus:
        last = left.pop()
        remaining = max(0, len(last) - surplus)
        surplus -= len(last) - remaining
        if remaining:
            left.append(last.split(remaining)[0])
    return left


def _total(kept: Iterable[KeptSamples]) -> int:
    """Number of samples."""
    return sum(map(len, kept))
