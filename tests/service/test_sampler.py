"""Plans say exactly which indices a reader examines, at both ends of the 64 bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.sampler import (
    END_OF_INDICES,
    IndexRange,
    Plan,
    plan_from_indices,
    plan_from_range,
)
from tests.service.expected_samples import Wanted, candidates


def requested_indices(plan: Plan) -> list[int]:
    rows = plan.stop - plan.first
    indices, requested = plan.indices(plan.first, rows), plan.requested(plan.first, rows)
    return [int(i) for i in indices[requested]]


@given(
    start=st.integers(0, 60), length=st.integers(0, 60), shards=st.integers(1, 5),
    shard=st.integers(0, 4), views=st.integers(1, 5), whole=st.booleans(),
    max_examined=st.integers(0, 30),
)  # fmt: skip
def test_a_range_examines_what_brute_force_finds(
    start: int, length: int, shards: int, shard: int, views: int, whole: bool, max_examined: int
) -> None:
    shard %= shards
    plan = plan_from_range(
        IndexRange(start, start + length, shard, shards, views, whole, max_examined)
    )
    full = Wanted(start, start + length, shard=shard, shards=shards, views=views)
    everything = list(candidates(full)) if length else []
    expected = everything[:max_examined] if max_examined else everything
    assert requested_indices(plan) == expected
    assert bool(plan.end_reason) == (len(expected) < len(everything))
    for ordinal in range(plan.first, plan.stop + 1):
        done = plan.examined(ordinal)
        assert plan.next_index(ordinal) == (expected[done - 1] + 1 if done else start)


@given(
    start=st.integers(0, 60), shards=st.integers(1, 5), views=st.integers(2, 5),
    length=st.integers(1, 40),
)  # fmt: skip
def test_whole_objects_are_computed_at_both_ends(
    start: int, shards: int, views: int, length: int
) -> None:
    plan = plan_from_range(IndexRange(start, start + length, 0, shards, views, True))
    computed = [int(i) for i in plan.indices(plan.first, plan.stop - plan.first)]
    objects = {i // views for i in requested_indices(plan)}
    assert computed == [o * views + v for o in sorted(objects) for v in range(views)]


@given(
    before_end=st.integers(0, 100), shards=st.integers(1, 7), views=st.integers(1, 7),
    whole=st.booleans(),
)  # fmt: skip
def test_the_last_indices_of_all_are_reached_and_not_passed(
    before_end: int, shards: int, views: int, whole: bool
) -> None:
    start = END_OF_INDICES - before_end
    plan = plan_from_range(IndexRange(start, shards=shards, views=views, whole_objects=whole))
    last = END_OF_INDICES // views * views if whole else END_OF_INDICES
    expected = [i for i in range(start, last) if i // views % shards == 0]
    assert requested_indices(plan) == expected
    assert plan.next_index(plan.stop) <= END_OF_INDICES


@given(
    indices=st.lists(st.integers(0, 80), min_size=1, max_size=20, unique=True).map(sorted),
    views=st.integers(1, 5), whole=st.booleans(), max_examined=st.integers(0, 25),
)  # fmt: skip
def test_listed_indices_are_examined_and_no_others(
    indices: list[int], views: int, whole: bool, max_examined: int
) -> None:
    plan = plan_from_indices(np.array(indices, np.uint64), views, whole, max_examined)
    expected = indices[:max_examined] if max_examined else indices
    assert requested_indices(plan) == expected
    assert bool(plan.end_reason) == (len(expected) < len(indices))
    for ordinal in range(plan.first, plan.stop + 1):
        done = plan.examined(ordinal)
        assert plan.next_index(ordinal) == (expected[done - 1] + 1 if done else expected[0])
