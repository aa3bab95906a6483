"""Positions of a screened plan never go back, whatever was reported before its next choice."""

import numpy as np

from engines.fake import fake_bundle
from service.sampler import IndexRange, plan_from_range
from service.screen import UNKNOWN_END, Chosen, ScreenedPlan

PROPOSAL = fake_bundle(16, proposals=True).proposals["rare"]


def chosen(*ordinals: int) -> Chosen:
    rows = np.array(ordinals, np.uint64)
    return Chosen(0, rows, rows + np.uint64(100), rows >= 0, rows.astype(np.float32))


def test_what_was_reported_behind_the_last_choice_stays_reported() -> None:
    plan = ScreenedPlan(plan_from_range(IndexRange(0, 2000)), PROPOSAL)
    assert (plan.stop, plan.next_index(0), plan.examined(UNKNOWN_END)) == (UNKNOWN_END, 0, 2000)
    plan.add(chosen(10, 700), 1000)
    assert (plan.examined(1), plan.next_index(2)) == (11, 701)
    end = plan.end(2, open_end=True)
    assert end == 1000
    plan.report(2, end, needed=2)
    plan.add(chosen(1500), 1600)
    assert plan.end(2, open_end=True) == plan.end(2, open_end=False) == 1000
    assert (plan.examined(2), plan.next_index(3)) == (1000, 1501)
    assert plan.indices(2, 1).tolist() == [1600] and plan.weights(2, 1).tolist() == [1500]
    plan.add(chosen(), 2000)
    assert (plan.stop, plan.end(3, open_end=True), plan.end(3, open_end=False)) == (3, 2000, 1501)


def test_rows_that_an_object_still_needs_are_kept() -> None:
    plan = ScreenedPlan(plan_from_range(IndexRange(0, 99, views=3, whole_objects=True)), PROPOSAL)
    plan.add(chosen(3, 4, 5, 9, 10, 11), 12)
    plan.report(3, plan.end(3, open_end=False), needed=2)
    assert plan.indices(2, 4).tolist() == [105, 109, 110, 111]
    assert plan.examined(6) == 12
