"""Why a stream's samples were rejected: how many for each reason, and what a predicate saw.

Enter: filtered rows in the order of their ordinals. Leave: the reasons of the rows under an
ordinal, and an error once nothing met the predicate for long.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.content import is_within
from service.errors import RangeExhausted
from service.query import Query

PASSED, UNCERTAIN, UNMET, UNBALANCED = range(4)  # what became of a row
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Reasons:
    """Number of rejected samples by the first reason that holds."""

    uncertainty: int  # over max_uncertainty
    predicate: int  # the predicate is not met
    balance: int  # the coin says so
    proposal: int  # not chosen by the proposal, so not generated
    views: int  # another view of the object was rejected, with filter_sets


class Discards:
    """The rows of one stream that are not reported yet, and how the predicate did."""

    def __init__(self, query: Query) -> None:
        self._query, self._plan = query, query.plan
        self._rows: deque[tuple[int, Codes]] = deque()  # first ordinal, PASSED and so on of each
        self._examined = 0  # rows whose content the predicate judged
        self._met = False  # whether any of them met it
        self._seen: NDArray[np.float32] | None = None  # [2, S], lowest and highest content

    def add(
        self, first: int, count: int, passed: NDArray[np.intp], content: NDArray[np.float32] | None
    ) -> None:
        """Takes the next rows: ordinals first to first + count - 1, see FilteredRows."""
        codes = np.full(count, UNCERTAIN, np.uint8)
        selection = self._query.selection
        if selection is not None and content is not None:
            certain = is_within(content, selection.limits)
            if np.isfinite(self._query.max_uncertainty):  # the first column is the score
                certain &= content[:, 0] <= self._query.max_uncertainty
            codes[certain] = UNBALANCED
        if selection is not None and selection.where is not None and content is not None:
            met = selection.where.met(content)
            codes[certain & ~met] = UNMET
            self._examined += count
            self._met = self._met or bool(met.any())
            ends = np.stack([content.min(axis=0), content.max(axis=0)])
            if self._seen is not None:
                ends = np.stack(
                    [np.minimum(ends[0], self._seen[0]), np.maximum(ends[1], self._seen[1])]
                )
            self._seen = ends
        codes[passed] = PASSED
        self._rows.append((first, codes))

    def reasons(self, stop: int, discarded: int, kept: int) -> Reasons:
        """Those of the rows under the ordinal `stop` that were not asked for yet.

        discarded: number of requested indices there, generated or not, that are not delivered.
        kept: number of those that are delivered.
        """
        counts = np.zeros(4, np.int64)
        while self._rows and self._rows[0][0] < stop:
            first, codes = self._rows.popleft()
            now = codes[: stop - first]
            if len(now) < len(codes):
                self._rows.appendleft((stop, codes[len(now) :]))
            if self._plan.unit > 1:
                now = now[self._plan.requested(first, len(now))]
            counts += np.bincount(now, minlength=4)
        uncertain, unmet, unbalanced = counts[[UNCERTAIN, UNMET, UNBALANCED]].tolist()
        proposal = kept + discarded - int(counts.sum())
        views = discarded - uncertain - unmet - unbalanced - proposal
        return Reasons(uncertain, unmet, unbalanced, proposal, views)

    def unmet_error(self) -> RangeExhausted | None:
        """The error of a stream whose predicate none of Query.unmet_limit samples met."""
        limit, selection = self._query.unmet_limit, self._query.selection
        if not limit or self._examined < limit or self._met or selection is None:
            return None
        if (predicate := selection.where) is None:
            return None
        assert self._seen is not None
        return RangeExhausted(
            f"none of {self._examined} samples met where: {predicate.ranges(*self._seen)}; loosen "
            "it, or set end_index or max_examined to search further"
        )
