"""Surveys: what is counted, drawn and picked, against the long way of counting it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from labelmint.batch import Batch
from labelmint.model import Model, model_from_proto
from labelmint.report.histogram import histogram_from_scores
from labelmint.report.stream_statistics import (
    EXAMPLES,
    LabelStatistics,
    ScoredSamples,
    examples_from_scores,
)
from tests.client.scripted_service import MODEL

SCORES = arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


def scored(scores: Any, first: int = 0) -> ScoredSamples:
    return ScoredSamples(np.arange(first, first + len(scores), dtype=np.uint64), scores)


@given(SCORES, SCORES)
def test_examples_are_the_extremes_and_none_comes_twice(kept: Any, discarded: Any) -> None:
    examples = examples_from_scores(scored(kept), scored(discarded, 1000))
    low = np.sort(kept[np.isfinite(kept)]).tolist()
    high = np.sort(discarded[np.isfinite(discarded)]).tolist()
    lists = (examples.surest, examples.last_kept, examples.first_discarded, examples.worst)
    chosen = [index for each in lists for index in each]
    assert sorted(set(chosen)) == sorted(chosen) == examples.indices()

    def values(indices: tuple[int, ...]) -> list[float]:
        return [float(kept[i] if i < 1000 else discarded[i - 1000]) for i in indices]

    assert values(examples.last_kept) == low[len(low) - len(examples.last_kept) :]
    assert values(examples.surest) == low[: len(examples.surest)]
    assert values(examples.first_discarded) == high[: len(examples.first_discarded)]
    assert values(examples.worst) == high[len(high) - len(examples.worst) :]
    assert bool(examples.last_kept) == bool(low) and bool(examples.first_discarded) == bool(high)
    if min(len(low), len(high)) >= 2 * EXAMPLES:
        assert {len(each) for each in lists} == {EXAMPLES}


@given(SCORES, SCORES, st.floats())
def test_histograms_count_every_finite_score(kept: Any, discarded: Any, threshold: float) -> None:
    histogram = histogram_from_scores(kept, discarded, threshold)
    finite = [int(np.isfinite(part).sum()) for part in (kept, discarded)]
    if not sum(finite):
        assert histogram is None
        return
    assert histogram
    assert [sum(b.kept for b in histogram.bars), sum(b.discarded for b in histogram.bars)] == finite
    assert histogram.tallest == max(bar.kept + bar.discarded for bar in histogram.bars)
    assert all(-1e-6 <= tick.left <= 100 + 1e-6 for tick in histogram.ticks)
    assert histogram.threshold is None or 0 <= histogram.threshold <= 100 + 1e-6


@given(arrays.arrays(np.float32, st.integers(2, 60), elements=st.floats(0, 1, width=32)))
def test_a_bin_ends_at_the_threshold(scores: Any) -> None:
    limit = float(np.median(scores))
    kept, discarded = scores[scores < limit], scores[scores > limit]
    histogram = histogram_from_scores(kept, discarded, limit)
    if histogram and histogram.threshold:
        for bar in histogram.bars:
            middle = bar.left + bar.width / 2
            assert not (bar.kept and middle > histogram.threshold)
            assert not (bar.discarded and middle < histogram.threshold)


def batch(**changes: Any) -> Batch:
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    whole: dict[str, Any] = {
        **fields, "indices": np.arange(2, dtype=np.uint64), "next_index": 2, "discarded": 0,
        "bundle_id": "", **changes,
    }  # fmt: skip
    return Batch(**whole)


@pytest.fixture
def model() -> Model:
    return model_from_proto(MODEL)


@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 6), st.just(3), st.just(4)),
        elements=st.sampled_from([0, 1, 2, 9]),
    ),
    st.integers(0, 6),
)
def test_shares_are_of_all_pixels_and_of_all_images(masks: Any, split: int) -> None:
    statistics = LabelStatistics()
    for part in (masks[:split], masks[split:]):
        if len(part):
            statistics.add(batch(masks=part, indices=np.arange(len(part), dtype=np.uint64)))
    rows = statistics.frequencies(model_from_proto(MODEL))
    assert [row.label.id for row in rows] == [0, 1, 2] + [9] * bool((masks == 9).any())
    for row in rows:
        found = masks == row.label.id
        assert row.pixels == pytest.approx(found.mean())
        assert row.images == pytest.approx(found.any(axis=(1, 2)).mean())


def test_odd_values_are_counted_as_they_are(model: Model) -> None:
    statistics = LabelStatistics()
    depth = np.array([[[np.nan, 2]], [[np.inf, 4]]], np.float16)
    points = np.full((2, 3, 3), np.nan, np.float32)
    statistics.add(batch(masks=np.full((2, 1, 2), 255, np.uint8), depth=depth, keypoints=points))
    rows = {row.label.id: row for row in statistics.frequencies(model)}
    assert (rows[255].pixels, rows[255].images, rows[255].label.name) == (1, 1, "class 255")
    assert (rows[0].pixels, rows[0].images) == (0, 0)
    measured = statistics.depth()
    assert measured and (measured.nearest, measured.farthest, measured.not_finite) == (2, 4, 0.5)
    assert all(math.isnan(point.median) for point in statistics.keypoints(model))
    nowhere = LabelStatistics()
    nowhere.add(batch(depth=np.full((2, 1, 1), np.nan, np.float16)))
    lost = nowhere.depth()
    assert lost and math.isnan(lost.nearest) and lost.not_finite == 1
    assert (nowhere.frequencies(model), nowhere.keypoints(model)) == ((), ())
