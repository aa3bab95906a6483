"""Whatever a server calls things, a report shows it as text."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmint.client import Client
from labelmint.model import LabelClass, model_from_proto
from labelmint.report.page import html_from_statistics
from labelmint.report.stream_statistics import StreamStatistics, statistics_from_stream
from tests.client.report_page import Page
from tests.client.scripted_service import MODEL, ScriptedService


@pytest.fixture(scope="module")
def statistics(server: tuple[str, ScriptedService]) -> StreamStatistics:
    with Client(server[0]) as client:
        return statistics_from_stream(
            client, model_from_proto(MODEL), 30, {"max_uncertainty": 0.5}, lambda samples: None
        )


def renamed(statistics: StreamStatistics, name: str) -> StreamStatistics:
    """The statistics with everything that a server may name called name."""
    model = dataclasses.replace(
        statistics.model,
        name=name,
        bundle_id=name,
        family=name,
        engine=name,
        score_source=name,
        score_measure=name,
        licences=(name,),
        classes=tuple(LabelClass(each.id, name, each.color) for each in statistics.model.classes),
        keypoints=(name,) * len(statistics.model.keypoints),
    )
    return dataclasses.replace(statistics, model=model)


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><b>",
    "</title></bdi>",
    "' onmouseover='x",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;&#0;",
    "\x00\x1b]0;\u202e\ufeff",
    "two\nlines",
)


def structure(page: Page) -> list[Any]:
    return [(tag, sorted(attributes)) for tag, attributes in page.elements]


@pytest.fixture(scope="module")
def honest(statistics: StreamStatistics) -> Page:
    return Page(html_from_statistics(renamed(statistics, "n"), {"n": "n"}, "n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(statistics: StreamStatistics, honest: Page, name: str) -> None:
    page = Page(html_from_statistics(renamed(statistics, name), {name: name}, name))
    assert structure(page) == structure(honest)
    assert page.styles == honest.styles
    assert page.words.count(name) >= 1 + 1 + len(statistics.model.keypoints)  # title, heading, rows


@pytest.mark.long
@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_is_text(statistics: StreamStatistics, honest: Page, name: str) -> None:
    page = Page(html_from_statistics(renamed(statistics, name), {name: name}, name))
    assert structure(page) == structure(honest)


def test_colours_are_numbers(statistics: StreamStatistics) -> None:
    html = html_from_statistics(statistics, {}, "labelmint")
    found = re.findall(r"background: (rgb\([^)]*\))", html)
    expected = [f"rgb{label.color}" for label in statistics.model.classes for _ in range(2)]
    assert found == expected
