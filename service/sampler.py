"""Which raw indices a stream examines, as arithmetic on ordinals; no latents are drawn here.

Enters: a request's range or list of raw indices. Leaves: a `Plan`.

The ordinal of an index is its place within the reader's shard, counted from index 0. Shards take
whole objects in turn. With 2 shards and V = 3 views of each object:

    index      0  1  2   3  4  5   6  7  8   9 10 11
    shard      0  0  0   1  1  1   0  0  0   1  1  1
    ordinal    0  1  2   0  1  2   3  4  5   3  4  5

So the indices of any ordinals follow without a list of them. With `whole_objects` (filter_sets)
a plan also computes the views of its first and last object that were not requested, because they
decide about the others; those rows are never delivered.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

END_OF_INDICES = 2**64 - 1  # exclusive, so that next_index always fits into 64 bits


class Plan(Protocol):
    """A run of ordinals [first, stop), and the raw index of each."""

    @property
    def first(self) -> int:
        """First ordinal to compute, a multiple of `unit`."""

    @property
    def stop(self) -> int:
        """End of the ordinals to compute, exclusive, a multiple of `unit`."""

    @property
    def unit(self) -> int:
        """Number of ordinals that are kept or rejected together: the views of an object, or 1."""

    @property
    def end_reason(self) -> str:
        """Why the stream ends before the end of the requested range; empty when it does not."""

    def indices(self, first: int, count: int) -> UInt64s:
        """Raw indices, [count], of the ordinals from `first` to `first + count - 1`."""

    def requested(self, first: int, count: int) -> NDArray[np.bool_]:
        """Marks, [count], those of these ordinals that the caller requested."""

    def examined(self, stop: int) -> int:
        """Number of requested ordinals under `stop`."""

    def next_index(self, stop: int) -> int:
        """Raw index at which to resume once every ordinal under `stop` is kept or rejected."""


@dataclass(frozen=True)
class RangePlan:
    """Ordinals [first_requested, stop_requested) of shard `shard` of `shards`."""

    start: int  # raw index to report while nothing is examined
    first_requested: int
    stop_requested: int
    shard: int
    shards: int
    views: int  # number of views of each object
    unit: int
    end_reason: str

    @property
    def first(self) -> int:
        return self.first_requested // self.unit * self.unit

    @property
    def stop(self) -> int:
        if self.stop_requested == self.first_requested:
            return self.first
        return -(-self.stop_requested // self.unit) * self.unit

    def indices(self, first: int, count: int) -> UInt64s:
        ordinals = np.uint64(first) + np.arange(count, dtype=np.uint64)
        objects, views = np.divmod(ordinals, np.uint64(self.views))
        raw_objects = objects * np.uint64(self.shards) + np.uint64(self.shard)
        return raw_objects * np.uint64(self.views) + views

    def requested(self, first: int, count: int) -> NDArray[np.bool_]:
        offsets = np.arange(count)
        return (offsets >= self.first_requested - first) & (offsets < self.stop_requested - first)

    def examined(self, stop: int) -> int:
        return min(max(stop, self.first_requested), self.stop_requested) - self.first_requested

    def next_index(self, stop: int) -> int:
        examined = self.examined(stop)
        if examined == 0:
            return self.start
        return int(self.indices(self.first_requested + examined - 1, 1)[0]) + 1


@dataclass(frozen=True)
class ListPlan:
    """Exactly these raw indices; ordinals count the views of their objects, `unit` of each."""

    listed: UInt64s  # the requested indices, strictly ascending, not empty
    objects: UInt64s  # the objects of `listed`, strictly ascending
    unit: int
    end_reason: str

    first = 0

    @property
    def stop(self) -> int:
        return len(self.objects) * self.unit

    def indices(self, first: int, count: int) -> UInt64s:
        objects, views = np.divmod(np.arange(first, first + count), self.unit)
        return self.objects[objects] * np.uint64(self.unit) + views.astype(np.uint64)

    def requested(self, first: int, count: int) -> NDArray[np.bool_]:
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
    end: int = END_OF_INDICES  # exclusive, at least start
    shard: int = 0
    shards: int = 1
    views: int = 1  # number of views of each object
    whole_objects: bool = False  # the views of an object are kept or rejected together
    max_examined: int = 0  # most indices to examine; 0: no limit
    end_reason: str = ""  # why `end` is before the end that was requested; empty when it is not


def plan_from_range(raw: IndexRange) -> RangePlan:
    """The plan of a range; an object that would reach past the last index does not exist."""
    end, unit = raw.end, raw.views if raw.whole_objects else 1
    first = _ordinal_from_index(raw, raw.start)
    stop = max(first, _ordinal_from_index(raw, min(end, END_OF_INDICES // unit * unit)))
    end_reason = raw.end_reason
    if 0 < raw.max_examined < stop - first:
        stop, end_reason = first + raw.max_examined, max_examined_reached(raw.max_examined)
    return RangePlan(raw.start, first, stop, raw.shard, raw.shards, raw.views, unit, end_reason)


def _ordinal_from_index(raw: IndexRange, index: int) -> int:
    """The shard's first ordinal whose index is at least `index`."""
    raw_object, view = divmod(index, raw.views)
    if raw_object < raw.shard:
        return 0
    shard_object, remainder = divmod(raw_object - raw.shard, raw.shards)
    if remainder == 0:
        return shard_object * raw.views + view
    return (shard_object + 1) * raw.views


def plan_from_indices(
    indices: UInt64s, views: int, whole_objects: bool, max_examined: int
) -> ListPlan:
    """The plan of explicit indices, strictly ascending, at least one."""
    end_reason = ""
    if 0 < max_examined < len(indices):
        indices, end_reason = indices[:max_examined], max_examined_reached(max_examined)
    unit = views if whole_objects else 1
    return ListPlan(indices, np.unique(indices // np.uint64(unit)), unit, end_reason)


def max_examined_reached(max_examined: int) -> str:
    """The end_reason of a stream that max_examined cuts short."""
    return (
        f"max_examined is {max_examined}, and {max_examined} indices were examined; resume from "
        "next_index, raise max_examined or loosen the filter"
    )
