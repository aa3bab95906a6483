"""Columns, pinned options and parts of a range: what other libraries read a stream with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint import Client
from labelmint.errors import NotReady
from labelmint.model import model_from_proto
from labelmint.options import split_range
from tests.client.scripted_service import BUNDLE_ID, MODEL, ScriptedService, serving


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"outputs": ["w", "uncertainty_map", "image"]},
        {"views_per_object": 2, "group_views": True},
        {"max_uncertainty": 0.0, "end_index": 9},
    ],
)
def test_the_schema_is_that_of_the_batches(target: str, options: dict[str, Any]) -> None:
    query = {name: value for name, value in options.items() if name != "group_views"}
    with Client(target) as client:
        schema = client.model().schema(**query, view="drawn")
        batches = list(client.stream(4, **{"end_index": 8, **options}))
    lead = 2 if "group_views" in options else 1
    for batch in batches:
        columns = batch.columns()
        assert list(columns) == list(schema)
        for name, column in schema.items():
            array = columns[name]
            assert (array.dtype, array.shape[lead:]) == (column.dtype, column.shape), name
        assert np.array_equal(columns["index"], batch.indices)
    assert len(batches) == (0 if "max_uncertainty" in options else 2)


def test_an_output_that_a_model_lacks_is_none_of_its_columns() -> None:
    model = model_from_proto(MODEL)
    with pytest.raises(ValueError, match="output 'masks' is unknown; did you mean mask"):
        model.schema(outputs=["masks"])
    poor = model_from_proto(type(MODEL)(name="poor", outputs=MODEL.outputs[:1]))
    with pytest.raises(ValueError, match="output depth is none of model poor; choose from image"):
        poor.schema(outputs=["depth"])


def test_pinned_options_keep_the_samples_when_the_calibration_changes(
    target: str, service: ScriptedService
) -> None:
    options: Any = {"seed": 3, "keep_fraction": 0.5, "end_index": 40}
    with Client(target) as client:
        before = [batch.indices.tolist() for batch in client.stream(8, **options)]
        service.threshold = 0.5
        pinned = client.pin(**options)
        service.threshold = 0.01
        assert pinned == {
            "seed": 3, "end_index": 40, "model": MODEL.name, "bundle_id": BUNDLE_ID,
            "max_uncertainty": 0.5,
        }  # fmt: skip
        assert [batch.indices.tolist() for batch in client.stream(8, **pinned)] == before
        assert client.pin(**pinned) == pinned
        with pytest.raises(NotReady, match="bundle_id is sha256:other, scripted is served from"):
            client.pin(bundle_id="sha256:other")


@given(
    st.integers(0, 60), st.integers(1, 90), st.integers(1, 7), st.integers(1, 100), st.booleans()
)
def test_parts_have_each_index_once_and_objects_whole(
    start: int, count: int, views: int, parts: int, far: bool
) -> None:
    start += 2**63 if far else 0
    ranges = split_range(
        {"start_index": start, "end_index": start + count, "views_per_object": views}, parts
    )
    assert [i for a, b in ranges for i in range(a, b)] == list(range(start, start + count))
    assert all(b % views == 0 for _, b in ranges[:-1])
    objects = [-(-b // views) - a // views for a, b in ranges]
    assert max(objects) - min(objects) <= 1
    assert len(ranges) == min(parts, sum(objects))


@pytest.mark.parametrize(
    ("options", "parts", "words"),
    [
        ({}, 2, "end_index 0 is not over start_index 0; parts are those of a range"),
        ({"end_index": 9, "count": 3}, 2, "option 'count' is for a whole stream"),
        ({"end_index": 9, "num_shards": 1}, 2, "option 'num_shards' is for a whole stream"),
        ({"end_index": 9}, 0, "parts 0 is under 1"),
        ({"end_index": 1 << 40}, 1 << 40, "parts 1099511627776 is over 1000000"),
    ],
)
def test_what_is_no_range_has_no_parts(options: Any, parts: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_range(options, parts)


def test_readers_of_parts_begin_at_the_targets_that_they_name() -> None:
    with serving() as (first, one), serving() as (second, two):
        for number in (1, 3, 2):
            with Client([first, second]) as client:
                list(client.stream(4, end_index=4, first_target=number))
    assert (len(one.queries), len(two.queries)) == (1, 2)
