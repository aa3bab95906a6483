"""Ranking filters: exactly what the research code keeps, and the plain rule beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint.datasets.selection import kept_by_rule, positions_by_rule


def research(scores: list[float], portion: float) -> list[int]:
    """DatasetGAN's train_deeplab.py, lines 106 to 119, in its own words."""
    items = list(enumerate(scores))
    if portion > 0:
        items = sorted(items, key=lambda item: item[1])
        f = int(len(items) * portion)
        items = items[30 : -f + 30]
    return sorted(position for position, _ in items)


# Few distinct scores, so that there are ties to break.
SCORES = st.lists(st.integers(0, 40).map(lambda n: float(np.float32(n / 7))), max_size=400)
PORTIONS = st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9, 0.99])


@given(SCORES, PORTIONS)
def test_research_keeps_what_the_research_code_keeps(scores: list[float], portion: float) -> None:
    fraction = round(1 - portion, 2)  # as a user writes it
    kept = positions_by_rule("research", np.array(scores, np.float32), fraction)
    assert kept.tolist() == research(scores, portion)
    assert len(kept) == kept_by_rule("research", len(scores), fraction)


@given(SCORES, PORTIONS)
def test_top_fraction_drops_the_most_uncertain_and_no_other(
    scores: list[float], portion: float
) -> None:
    kept = positions_by_rule("top-fraction", np.array(scores, np.float32), round(1 - portion, 2))
    rest = sorted(set(range(len(scores))) - set(kept.tolist()))
    assert len(rest) == int(len(scores) * portion)
    assert all((scores[a], a) < (scores[b], b) for a in kept.tolist() for b in rest)
    assert len(kept) == kept_by_rule("top-fraction", len(scores), round(1 - portion, 2))


def test_the_papers_figures() -> None:
    """10,000 images at 10 %: ranks 30 to 9,029; and 1,000 at 3 %: none, as the code has it."""
    scores = np.random.default_rng(0).permutation(10_000).astype(np.float32)
    kept = positions_by_rule("research", scores, 0.9)
    assert np.sort(scores[kept]).tolist() == list(range(30, 9030))
    assert kept_by_rule("research", 1000, 0.97) == 0
    assert kept_by_rule("top-fraction", 1000, 0.97) == 970


def test_scores_that_do_not_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        positions_by_rule("research", np.array([1, np.nan, 2], np.float32), 0.5)
