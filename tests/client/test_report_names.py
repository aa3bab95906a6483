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
from labelmint.report.page import html_from_survey
from labelmint.report.stream_statistics import Survey, survey_from_stream
from tests.client.report_page import Page
from tests.client.scripted_service import MODEL, ScriptedService


@pytest.fixture(scope="module")
def survey(server: tuple[str, ScriptedService]) -> Survey:
    with Client(server[0]) as client:
        return survey_from_stream(
            client, model_from_proto(MODEL), 30, {"max_uncertainty": 0.5}, lambda samples: None
        )


def renamed(survey: Survey, name: str) -> Survey:
    """The survey with everything that a server may name called name."""
    model = dataclasses.replace(
        survey.model,
        name=name,
        bundle_id=name,
        family=name,
        engine=name,
        score_source=name,
        licences=(name,),
        classes=tuple(LabelClass(each.id, name, each.color) for each in survey.model.classes),
        keypoints=(name,) * len(survey.model.keypoints),
    )
    return dataclasses.replace(survey, model=model)


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
def honest(survey: Survey) -> Page:
    return Page(html_from_survey(renamed(survey, "n"), {"n": "n"}, "n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(survey: Survey, honest: Page, name: str) -> None:
    page = Page(html_from_survey(renamed(survey, name), {name: name}, name))
    assert structure(page) == structure(honest)
    assert page.styles == honest.styles
    assert page.words.count(name) >= 1 + 1 + len(survey.model.keypoints)  # title, heading, rows


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_is_text(survey: Survey, honest: Page, name: str) -> None:
    page = Page(html_from_survey(renamed(survey, name), {name: name}, name))
    assert structure(page) == structure(honest)


def test_colours_are_numbers(survey: Survey) -> None:
    html = html_from_survey(survey, {}, "labelmint")
    found = re.findall(r"background: (rgb\([^)]*\))", html)
    expected = [f"rgb{label.color}" for label in survey.model.classes for _ in range(2)]
    assert found == expected
