"""The next batch is drawn late, and never too late."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from engines.fake import FakeOptions
from service.compute import MARGIN_S, RECENT, Pace
from tests.service.harness import FakeModel, RunningServer, served
from tests.service.test_metrics import scraped, value


def test_drawing_waits_until_the_run_is_about_to_end() -> None:
    pace = Pace()
    pace.drew(0.25)
    pace.run_ended(8, 2.0)
    pace.run_begins(8, now=100.0)
    assert pace.wait_s(100.0) == pytest.approx(2.0 - 0.25 - MARGIN_S)
    assert pace.wait_s(101.9) == 0


def test_runs_of_a_size_not_seen_yet_are_not_waited_for() -> None:
    pace = Pace()
    pace.run_ended(8, 2.0)
    pace.run_begins(4, now=100.0)
    assert pace.wait_s(100.0) == 0


def test_the_shortest_recent_run_and_the_longest_recent_draw_count() -> None:
    pace = Pace()
    pace.run_ended(8, 0.5)
    for seconds in (3.0, 1.0, 2.0):
        pace.run_ended(8, seconds)
        pace.drew(seconds / 10)
    pace.run_begins(8, now=0.0)
    assert pace.wait_s(0.0) == pytest.approx(0.5 - 0.3 - MARGIN_S)
    for _ in range(RECENT - 1):  # the two ends above are not recent any more
        pace.run_ended(8, 2.0)
        pace.drew(0.1)
    pace.run_begins(8, now=0.0)
    assert pace.wait_s(0.0) == pytest.approx(2.0 - 0.2 - MARGIN_S)


def test_a_small_request_finds_room_in_the_very_next_batch() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.2))
    with served([slow]) as server, ThreadPoolExecutor() as pool:
        long = server.stream()
        reading = pool.submit(lambda: sum(1 for _ in zip(range(40), long, strict=False)))
        runs = []
        for number in range(6):
            before = runs_ended(server)
            server.generate(indices=[number])
            runs.append(runs_ended(server) - before)
        long.cancel()
        reading.exception()
    assert min(runs[1:]) <= 2  # the one under way and its own; the first run has no known length


def runs_ended(server: RunningServer) -> float:
    return value(scraped(server), "labelmint_engine_seconds_count")
