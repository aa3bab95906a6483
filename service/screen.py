"""Streams with a proposal: which of their raw indices are generated, found ahead of their draws.

Enter: a plan and a proposal of engines.proposal. Leaves: a plan whose ordinals number the chosen
indices alone, so that scheduler and delivery fill engine batches as for any other stream:

    ordinal of the range   0  1  2  3  4  5  6  7  8  9
    chosen by its coin     .  x  .  .  .  x  x  .  .  ?    examined so far: 9
    ordinal here              0           1  2

While nothing is chosen, the indices examined so far are in heartbeats, so that a stream resumes
behind them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import GeneratorFacts
from bundle.proposals import Proposal
from engines.proposal import screened
from engines.protocol import Mapping
from engines.sampling import LatentOptions
from service.sampler import Plan, UInt64s
from service.scheduler import Lane

TURN_INDICES = 256  # examined in one turn, then others have theirs; 5 ms at w_dim 128
UNKNOWN_END = 2**63  # ordinals are chosen indices, of which there are fewer


@dataclass(frozen=True)
class Chosen:
    """Consecutive chosen ordinals, from number `first` on."""

    first: int
    ordinals: UInt64s  # [n], of the whole plan
    indices: UInt64s  # [n]
    requested: NDArray[np.bool_]  # [n]
    weights: NDArray[np.float32]  # [n]

    @property
    def end(self) -> int:
        return self.first + len(self.ordinals)

    def rows(self, first: int, count: int) -> slice:
        """Where ordinals first to first + count - 1 are in the arrays."""
        return slice(first - self.first, first - self.first + count)

    def without(self, rows: int) -> "Chosen":
        """Without its first `rows` rows."""
        return Chosen(
            self.first + rows,
            self.ordinals[rows:],
            self.indices[rows:],
            self.requested[rows:],
            self.weights[rows:],
        )

    def followed_by(self, other: "Chosen") -> "Chosen":
        """These, and then the others."""
        return Chosen(
            self.first,
            np.concatenate((self.ordinals, other.ordinals)),
            np.concatenate((self.indices, other.indices)),
            np.concatenate((self.requested, other.requested)),
            np.concatenate((self.weights, other.weights)),
        )


_NONE = Chosen(
    0, np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.bool_),
    np.empty(0, np.float32),
)  # fmt: skip


class ScreenedPlan:
    """The chosen part of another plan; see sampler.Plan. Written on the event loop only."""

    first = 0

    def __init__(self, whole: Plan, proposal: Proposal) -> None:
        self.whole, self.proposal = whole, proposal
        self.unit, self.end_reason = whole.unit, whole.end_reason
        self._chosen = _NONE  # those that are not forgotten; replaced, never changed
        self._reported = 0, whole.first  # stop, and its end, of the last message
        self.examined_stop = whole.first  # ordinals of the whole plan under this are examined

    @property
    def stop(self) -> int:
        """End of the chosen ordinals; UNKNOWN_END until the last index is examined."""
        return self._chosen.end if self.examined_stop >= self.whole.stop else UNKNOWN_END

    @property
    def found(self) -> int:
        """Number of ordinals that are known."""
        return self._chosen.end

    def indices(self, first: int, count: int) -> UInt64s:
        chosen = self._chosen
        return chosen.indices[chosen.rows(first, count)]

    def requested(self, first: int, count: int) -> NDArray[np.bool_]:
        chosen = self._chosen
        return chosen.requested[chosen.rows(first, count)]

    def weights(self, first: int, count: int) -> NDArray[np.float32]:
        """1 / keep probability, [count], of these ordinals."""
        chosen = self._chosen
        return chosen.weights[chosen.rows(first, count)]

    def examined(self, stop: int) -> int:
        return self.whole.examined(self._behind(stop))

    def next_index(self, stop: int) -> int:
        return self.whole.next_index(self._behind(stop))

    def end(self, stop: int, open_end: bool) -> int:
        """Where the whole plan's ordinals end that are decided when those under `stop` are here.

        open_end: whether those count that were examined behind `stop` without a choice.
        """
        if open_end and stop == self.found:
            return self.examined_stop
        return self._behind(stop)

    def report(self, stop: int, end: int, needed: int) -> None:
        """Notes that ordinals under `stop`, and those of the whole plan under `end`, are in
        messages; frees those under `needed`, which nobody asks for any more."""
        self._reported = stop, end
        self._chosen = self._chosen.without(needed - self._chosen.first)

    def add(self, found: Chosen, examined_stop: int) -> None:
        """Takes the next chosen ordinals, and how far the whole plan is examined now."""
        self._chosen = self._chosen.followed_by(found)
        self.examined_stop = examined_stop

    def _behind(self, stop: int) -> int:
        chosen = self._chosen
        if stop == self._reported[0]:
            return self._reported[1]
        if stop > chosen.end:
            return self.whole.stop
        return int(chosen.ordinals[stop - 1 - chosen.first]) + 1


class Screening:
    """One stream's work ahead, see ahead.AheadStream: the coins of the next indices."""

    def __init__(
        self,
        plan: ScreenedPlan,
        lane: Lane,
        options: LatentOptions,
        mapping: Mapping,
        generator: GeneratorFacts,
        failed: Callable[[Exception], None],
    ) -> None:
        """`lane` may draw nothing until indices are chosen; `failed` ends the stream."""
        self.lane, self._plan, self._options = lane, plan, options
        self._mapping, self._generator, self._failed = mapping, generator, failed
        self._found, self._examined_stop = _NONE, plan.examined_stop  # of the last turn
        self._error: Exception | None = None
        lane.ready = lane.drawn

    def wanted(self, now: float) -> int:
        """Chosen ordinals that may be under way next and are not known yet."""
        ended = self._error is not None or self._examined_stop >= self._plan.whole.stop
        if ended or not self.lane.is_live(now):
            return 0
        return self.lane.drawn + self.lane.window - self._plan.found

    def turn(self, count: int) -> None:
        """Examines the next TURN_INDICES indices, in whole objects where those stay together."""
        plan = self._plan.whole
        first, unit = self._examined_stop, plan.unit
        rows = min(-(-TURN_INDICES // unit) * unit, plan.stop - first)
        try:
            indices = plan.indices(first, rows)
            result = screened(
                self._mapping, self._generator, self._options, self._plan.proposal, indices
            )
        except Exception as error:  # ends its own stream, see errors
            self._error = error
            return
        chosen = np.flatnonzero(result.chosen)
        self._found = Chosen(
            0,
            np.uint64(first) + chosen.astype(np.uint64),
            indices[chosen],
            plan.requested(first, rows)[chosen],
            result.weights[chosen],
        )
        self._examined_stop = first + rows

    def turned(self) -> None:
        """Lets the lane draw what the last turn found."""
        if self._error is not None:
            self._failed(self._error)
            return
        self._plan.add(self._found, self._examined_stop)
        self.lane.ready, self.lane.stop = self._plan.found, self._plan.stop
