"""Which raw indices a stream examines, as arithmetic on ordinals; nothing is drawn here.

Ordinal k is the k-th index of the reader's shard, counted from index 0, so that plans need no
memory and any ordinal range has its indices at once. With `whole_objects` (filter_sets) a plan
also computes the views of its first and last object that the caller did not ask for, because
they decide about the others; those rows are not `wanted` and never delivered.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

END_OF_INDICES = 2**64 - 1  # exclusive, so that next_index always fits


class Plan(Protocol):
    """A run of ordinals [first, stop) and what each means on the wire."""

    @property
    def first(self) -> int:
        """First ordinal to compute, a multiple of `unit`."""

    @property
    def stop(self) -> int:
        """End of the ordinals to compute, exclusive, a multiple of `unit` from `first`."""

    @property
    def unit(self) -> int:
        """Ordinals that are kept or dropped together: views of an object, or 1."""

    @property
    def spent(self) -> str:
        """Why the stream ends before the range it asked for; empty when it does not."""

    def indices(self, first: int, count: int) -> UInt64s:
        """Raw indices of ordinals first to first + count - 1."""

    def wanted(self, first: int, count: int) -> NDArray[np.bool_]:
        """Which of these ordinals the caller asked for."""

    def examined(self, stop: int) -> int:
        """How many wanted ordinals lie under `stop`."""

    def next_index(self, stop: int) -> int:
        """Where to resume when every ordinal under `stop` is done with."""


@dataclass(frozen=True)
class RangePlan:
    """Ordinals [first_wanted, stop_wanted) of shard `shard` of `shards`."""

    start: int  # raw index to report while nothing is examined
    first_wanted: int
    stop_wanted: int
    shard: int
    shards: int
    views: int
    unit: int
    spent: str

    @property
    def first(self) -> int:
        return self.first_wanted // self.unit * self.unit

    @property
    def stop(self) -> int:
        if self.stop_wanted == self.first_wanted:
            return self.first
        return -(-self.stop_wanted // self.unit) * self.unit

    def indices(self, first: int, count: int) -> UInt64s:
        ordinals = np.uint64(first) + np.arange(count, dtype=np.uint64)
        objects, views = np.divmod(ordinals, np.uint64(self.views))
        mine = objects * np.uint64(self.shards) + np.uint64(self.shard)
        return mine * np.uint64(self.views) + views

    def wanted(self, first: int, count: int) -> NDArray[np.bool_]:
        offsets = np.arange(count)
        return (offsets >= self.first_wanted - first) & (offsets < self.stop_wanted - first)

    def examined(self, stop: int) -> int:
        return min(max(stop, self.first_wanted), self.stop_wanted) - self.first_wanted

    def next_index(self, stop: int) -> int:
        examined = self.examined(stop)
        if examined == 0:
            return self.start
        return int(self.indices(self.first_wanted + examined - 1, 1)[0]) + 1


@dataclass(frozen=True)
class ListPlan:
    """Exactly these raw indices; with `whole_objects`, ordinals count views of their objects."""

    listed: UInt64s  # strictly ascending, not empty, what is wanted
    objects: UInt64s  # strictly ascending, the objects of `listed`
    unit: int
    spent: str

    first = 0

    @property
    def stop(self) -> int:
        return len(self.objects) * self.unit

    def indices(self, first: int, count: int) -> UInt64s:
        objects, views = np.divmod(np.arange(first, first + count), self.unit)
        return self.objects[objects] * np.uint64(self.unit) + views.astype(np.uint64)

    def wanted(self, first: int, count: int) -> NDArray[np.bool_]:
        return np.isin(self.indices(first, count), self.listed, assume_unique=True)

    def examined(self, stop: int) -> int:
        if stop >= self.stop:
            return len(self.listed)
        return int(np.searchsorted(self.listed, self.indices(stop, 1)[0]))

    def next_index(self, stop: int) -> int:
        examined = self.examined(stop)
        return int(self.listed[examined - 1]) + 1 if examined else int(self.listed[0])


@dataclass(frozen=True)
class IndexRange:
    """The raw range [start, end) as one reader takes it."""

    start: int
    end: int = END_OF_INDICES  # exclusive, not under start
    shard: int = 0
    shards: int = 1
    views: int = 1
    whole_objects: bool = False
    max_examined: int = 0  # 0: none
    spent_at_end: str = ""  # why `end` is not what the caller asked for


def plan_from_range(wanted: IndexRange) -> RangePlan:
    """The plan of a range; an object that would reach past the last index does not exist."""
    end, unit = wanted.end, wanted.views if wanted.whole_objects else 1
    first = _ordinal_from_index(wanted, wanted.start)
    stop = max(first, _ordinal_from_index(wanted, min(end, END_OF_INDICES // unit * unit)))
    spent = wanted.spent_at_end
    if 0 < wanted.max_examined < stop - first:
        stop, spent = first + wanted.max_examined, spent_by_max_examined(wanted.max_examined)
    return RangePlan(
        wanted.start, first, stop, wanted.shard, wanted.shards, wanted.views, unit, spent
    )


def _ordinal_from_index(wanted: IndexRange, index: int) -> int:
    """The shard's first ordinal whose index is not under `index`."""
    objects, view = divmod(index, wanted.views)
    if objects < wanted.shard:
        return 0
    mine, others = divmod(objects - wanted.shard, wanted.shards)
    return mine * wanted.views + view if others == 0 else (mine + 1) * wanted.views


def plan_from_indices(
    indices: UInt64s, views: int, whole_objects: bool, max_examined: int
) -> ListPlan:
    """The plan of explicit indices, strictly ascending, at least one."""
    spent = ""
    if 0 < max_examined < len(indices):
        indices, spent = indices[:max_examined], spent_by_max_examined(max_examined)
    unit = views if whole_objects else 1
    return ListPlan(indices, np.unique(indices // np.uint64(unit)), unit, spent)


def spent_by_max_examined(max_examined: int) -> str:
    """The message of a stream that ends there."""
    return (
        f"max_examined is {max_examined} and so many indices were examined; go on from "
        "next_index, raise max_examined or loosen the filter"
    )
