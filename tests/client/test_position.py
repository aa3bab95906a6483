"""Positions: any change of layout at any moment examines every index exactly once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint.torch.position import (
    Position,
    ShardLayout,
    merged_positions,
    position_from_state,
    state_from_position,
)


def of_shard(shard: int, shards: int, views: int, start: int, end: int) -> Iterator[int]:
    return (i for i in range(start, end) if i // views % shards == shard)


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 30),
    st.integers(0, 2**32),
)
def test_any_sequence_of_layouts_takes_every_index_once(
    layouts: list[int], views: int, start: int, seed: int
) -> None:
    dice, end = random.Random(seed), start + 200
    position = Position(ShardLayout(1, {0: start}))
    taken: list[int] = []
    for number, shards in enumerate(layouts):
        position = position.for_layout(shards)
        last = number == len(layouts) - 1
        positions = []
        for shard in range(shards):
            first = position.layout.next[shard]
            stop = end if last else dice.randint(first, min(first + 40, end))
            mine = np.array([*of_shard(shard, shards, views, first, stop)], np.uint64)
            taken += mine[~position.done(mine, views)].tolist()
            positions.append(position.advanced(shard, stop, "sha256:here"))
        dice.shuffle(positions)
        position = merged_positions(positions)
        position = position_from_state(json.loads(json.dumps(state_from_position(position))))
    assert sorted(taken) == list(range(start, end))


def test_layouts_that_everyone_is_past_are_forgotten() -> None:
    position = Position(ShardLayout(2, {0: 10, 1: 20})).for_layout(3)
    assert position.earlier == (ShardLayout(2, {0: 10, 1: 20}),)
    past = Position(ShardLayout(3, {0: 20, 1: 25, 2: 30}), position.earlier).for_layout(2)
    assert past.earlier == (ShardLayout(3, {0: 20, 1: 25, 2: 30}),)
    even = Position(ShardLayout(2, {0: 40, 1: 40}), past.earlier).for_layout(5)
    assert even.earlier == ()


def test_another_layout_needs_the_states_of_all_readers() -> None:
    one = Position(ShardLayout(3, {1: 7}))
    assert one.for_layout(3) is one
    with pytest.raises(ValueError, match="shards 1 of 3, and the layout changes to 2") as caught:
        one.for_layout(2)
    assert "merge_states" in str(caught.value)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "no states"),
        ([Position(ShardLayout(3, {0: 1}))], "3 shards does not go with one of 2"),
        ([Position(ShardLayout(2, {1: 1}), (ShardLayout(1, {0: 9}),))], "from the same start"),
        ([Position(ShardLayout(2, {1: 1}), bundle_id="\x1b[2J")], r"'\\x1b\[2J' and 'sha256:a'"),
        ([Position(ShardLayout(2, {1: 1}), bundle_id="sha256:b")], "'sha256:a' and 'sha256:b'"),
    ],
)
def test_states_that_do_not_belong_together_are_refused(others: list[Position], words: str) -> None:
    first = Position(ShardLayout(2, {0: 1}), bundle_id="sha256:a")
    with pytest.raises(ValueError, match=words):
        merged_positions([first, *others] if others else [])


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        "num_shards": st.integers(-2, 2**33) | ANY_JSON,
        "next": st.dictionaries(st.text("0123456789-x", max_size=3), ANY_JSON) | ANY_JSON,
        "earlier": st.lists(ANY_JSON, max_size=2) | ANY_JSON,
        "bundle_id": st.text(max_size=3) | ANY_JSON,
    },
))  # fmt: skip
def test_a_damaged_state_is_refused_in_one_line(state: dict[str, Any]) -> None:
    try:
        position_from_state(state)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


def test_a_small_state_of_billions_of_shards_is_refused_at_once() -> None:
    layout = {"num_shards": 2**32 - 1, "next": {"1": 5}}
    state = {"version": 1, **layout, "earlier": [], "bundle_id": ""}
    missing = "0, 2, 3, 4, 5, 6, 7, 8 and 4294967286 more"
    with pytest.raises(ValueError, match=f"misses shards {missing} of an earlier layout"):
        position_from_state({**state, "earlier": [layout]})
    position = position_from_state(state)
    assert position.layout.missing == missing
    with pytest.raises(ValueError, match="shards 1 of 4294967295, and the layout changes to 1"):
        position.for_layout(1)
    assert ShardLayout(2, {0: 1}).missing == "1" and not ShardLayout(2, {0: 1, 1: 1}).missing


def test_a_newer_state_is_refused() -> None:
    state = state_from_position(Position(ShardLayout(1, {0: 0})))
    with pytest.raises(ValueError, match="version 2 is unknown; this release reads 1"):
        position_from_state({**state, "version": 2})
