"""Batches are shared fairly, and no lane has more under way than its window."""

import math

from hypothesis import given
from hypothesis import strategies as st

from service.scheduler import Lane, Scheduler

ENDLESS = 1 << 40


def lane(window: int = 64, count: int = 0, unit: int = 1, stop: int = ENDLESS) -> Lane:
    return Lane(0, stop, unit, window, count)


def scheduler_of(*lanes: Lane) -> Scheduler:
    scheduler = Scheduler()
    for one in lanes:
        scheduler.add(one, now=0.0)
    return scheduler


def finish(lanes: tuple[Lane, ...]) -> None:
    """Everything drawn is kept and sent."""
    for one in lanes:
        rows = one.drawn - one.decided
        one.decide(rows, rows)
        one.unsent = 0


@given(lanes=st.integers(1, 40), capacity=st.integers(1, 16))
def test_lanes_that_always_want_rows_get_the_same_share(lanes: int, capacity: int) -> None:
    everyone = tuple(lane() for _ in range(lanes))
    scheduler = scheduler_of(*everyone)
    for _ in range(10 * lanes):
        assert sum(d.count for d in scheduler.draw(capacity, 0.0)) == capacity
        finish(everyone)
    drawn = [one.drawn for one in everyone]
    assert max(drawn) - min(drawn) <= capacity


@given(weights=st.lists(st.integers(1, 16), min_size=1, max_size=12), capacity=st.integers(1, 16))
def test_lanes_share_by_weight(weights: list[int], capacity: int) -> None:
    everyone = tuple(Lane(0, ENDLESS, 1, 1 << 20, weight=weight) for weight in weights)
    scheduler = scheduler_of(*everyone)
    turn = max(1, capacity // 4)
    for _ in range(5 * sum(weights) * turn):
        scheduler.draw(capacity, 0.0)
        finish(everyone)
    for one in everyone:
        fair = sum(lane.drawn for lane in everyone) * one.weight / sum(weights)
        assert abs(one.drawn - fair) <= turn * sum(weights)  # one round


@given(
    honest=st.integers(1, 4),
    heavy=st.integers(1, 40),
    weight=st.integers(1, 16),
    capacity=st.integers(1, 16),
)
def test_a_client_gains_nothing_by_many_heavy_lanes(
    honest: int, heavy: int, weight: int, capacity: int
) -> None:
    """Each client has the share of one, and divides it as it likes."""
    greedy = [Lane(0, ENDLESS, 1, 1 << 20, weight=weight, client="greedy") for _ in range(heavy)]
    others = [Lane(0, ENDLESS, 1, 1 << 20, client=f"client {n}") for n in range(honest)]
    everyone = (*greedy, *others)
    scheduler = scheduler_of(*everyone)
    for _ in range(50):
        assert sum(d.count for d in scheduler.draw(capacity, 0.0)) == capacity
        finish(everyone)
    fair = 50 * capacity / (honest + 1)
    turn = max(1, capacity // 4)
    for drawn in (sum(one.drawn for one in greedy), *(one.drawn for one in others)):
        assert abs(drawn - fair) <= turn


def test_a_client_that_wants_nothing_leaves_its_share_to_others() -> None:
    busy, idle = Lane(0, ENDLESS, 1, 64, client="a"), Lane(0, ENDLESS, 1, 0, client="b")
    (draw,) = scheduler_of(idle, busy).draw(16, 0.0)
    assert (draw.lane, draw.count) == (busy, 16)


def test_a_lane_draws_no_further_than_its_latents_are_ready() -> None:
    one = lane()
    one.ready = 3
    scheduler = scheduler_of(one)
    assert [d.count for d in scheduler.draw(16, 0.0)] == [3]
    assert scheduler.draw(16, 0.0) == []
    one.ready = 20
    assert [d.count for d in scheduler.draw(16, 0.0)] == [16]


def test_a_batch_is_filled_when_only_one_lane_wants_rows() -> None:
    busy, full = lane(), lane(window=0)
    (draw,) = scheduler_of(full, busy).draw(16, 0.0)
    assert (draw.lane, draw.count) == (busy, 16)


def test_a_newcomer_waits_for_one_round_at_most() -> None:
    crowd = tuple(lane() for _ in range(8))
    scheduler = scheduler_of(*crowd)
    scheduler.draw(8, 0.0)
    finish(crowd)
    newcomer = lane()
    scheduler.add(newcomer, 0.0)
    for _ in range(3):  # nine lanes, four to a batch
        scheduler.draw(8, 0.0)
        finish((*crowd, newcomer))
    assert newcomer.drawn > 0


def test_a_lane_whose_reader_does_not_read_stops_at_its_window() -> None:
    slow, fast = lane(window=20), lane()
    scheduler = scheduler_of(slow, fast)
    for _ in range(50):
        scheduler.draw(8, 0.0)
        slow.decide(slow.drawn - slow.decided, slow.drawn - slow.decided)  # kept, never sent
        finish((fast,))
    assert slow.drawn == 20
    assert fast.drawn > 350


def test_a_count_is_not_overdrawn_without_a_filter() -> None:
    one = lane(count=5)
    scheduler = scheduler_of(one)
    assert [d.count for d in scheduler.draw(16, 0.0)] == [5]
    assert scheduler.draw(16, 0.0) == []


def test_a_count_draws_by_the_rate_of_keeping() -> None:
    one = lane(count=10)
    scheduler = scheduler_of(one)
    scheduler.draw(16, 0.0)
    one.decide(10, 4)  # 6 missing at 4 in 10
    (draw,) = scheduler.draw(64, 0.0)
    assert 6 < draw.count <= 18


def test_objects_are_drawn_whole_even_past_window_and_count() -> None:
    one = lane(count=1, unit=6, window=4)
    (draw,) = scheduler_of(one).draw(16, 0.0)
    assert draw.count == 6


def test_removed_and_expired_lanes_get_nothing() -> None:
    gone, late, alive = lane(), Lane(0, ENDLESS, 1, 64, deadline=1.0), lane()
    scheduler = scheduler_of(gone, late, alive)
    scheduler.remove(gone)
    assert {d.lane for d in scheduler.draw(8, now=2.0)} == {alive}
    assert not gone.is_live(0.0) and not late.is_live(2.0) and late.is_live(0.5)
    assert alive.deadline == math.inf


def test_waiting_time_runs_from_when_rows_could_be_drawn() -> None:
    first, second = lane(window=8), lane()
    scheduler = scheduler_of(first)
    scheduler.add(second, now=1.0)
    since = {d.lane: d.since for d in scheduler.draw(8, now=3.0)}
    assert since == {first: 0.0, second: 1.0}
    since = {d.lane: d.since for d in scheduler.draw(8, now=4.0)}
    assert since[second] == 3.0
