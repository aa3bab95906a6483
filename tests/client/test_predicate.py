"""The language of `where` means what the same Python means, and refuses everything else at once."""

import ast
import re
import sys
import time
from random import Random
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelmint.options import StreamOptions, query_from_options
from labelmint.predicate import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_TESTS,
    Comparison,
    Predicate,
    PredicateError,
    predicate_from_text,
)
from tests.client.predicates import DEPTHS, NAMES, predicate_texts, python_value

Values = dict[tuple[str, str], float]


def truth(predicate: Predicate, values: Values) -> bool:
    if isinstance(predicate, Comparison):
        value = values[predicate.statistic.kind, predicate.statistic.name]
        return bool(eval(f"a {predicate.comparator} b", {"a": value, "b": predicate.number}))
    parts = [truth(part, values) for part in predicate.parts]
    return all(parts) if predicate.word == "and" else any(parts)


@settings(max_examples=40)
@given(texts=predicate_texts(), seed=st.integers(0, 2**32 - 1))
def test_a_predicate_is_what_python_makes_of_its_text(texts: list[str], seed: int) -> None:
    draws = Random(seed)
    statistics = [("uncertainty", "")]
    statistics += [(k, n) for k in ("share", "uncertainty", "confidence") for n in NAMES]
    statistics += [("depth", share) for share in DEPTHS]
    for text in texts:
        values = {each: draws.choice((0.0, 0.25, 0.5, 0.75, 1.0)) for each in statistics}
        assert truth(predicate_from_text(text), values) == python_value(text, values), text


@settings(max_examples=200)
@given(
    st.text(max_size=60)
    | st.text("sharevisibleuncertaintydepth('\"<>=!.0159e+-) andornot\\\n", max_size=90)
)
@example("__import__('os').system('true')")
@example("share('a') > 0.1 if True else 0")
@example("share('a')[0] > 1")
@example("[share('a') > 0.1 for x in y]")
@example("lambda: share('a') > 0.1")
@example("share('a') >= 0.1; import os")
@example("share('a' 'b') > 0.1")
@example("share(f'{1}') > 0.1")
@example("share(b'a') > 0.1")
@example("share('\\x41') > 0.1")
@example("share('a') > 0.1 # and so on")
@example("share('a') > 1_000")
@example("share('a') > 0x10")
@example("share('a') > 1e999")
@example("share('a') > nan")
@example("share('a') > inf")
@example("share('a') > 007")
@example("\0")
@example("\ud800")
@example("\uff53hare('a') > 0.1")
def test_any_text_is_a_predicate_or_one_line_of_refusal(text: str) -> None:
    try:
        found = predicate_from_text(text)
    except PredicateError as error:
        assert str(error).isprintable() and str(error).startswith("where ")
        return
    assert found is not None
    ast.parse(text.strip(), mode="eval")  # what is accepted is Python


@pytest.mark.parametrize(
    "text",
    [
        "(" * MAX_CHARACTERS,
        "not " * (MAX_CHARACTERS // 4),
        "-" * MAX_CHARACTERS,
        "share('a') " + "> 1 " * 200,
        " or ".join(["visible('a')"] * 62),
        "9" * MAX_CHARACTERS,
        "share('" + "a" * 980 + "') > 1",
        "share('a') > 1e" + "9" * 900,
        " " * MAX_CHARACTERS,
        "'" * MAX_CHARACTERS,
        "x" * (1 << 20),
    ],
)
def test_hostile_texts_cost_little(text: str) -> None:
    before, depth = time.process_time(), sys.getrecursionlimit()
    sys.setrecursionlimit(len_of_stack() + 150)  # as deep in a server as it may be
    try:
        predicate_from_text(text)
    except PredicateError as error:
        assert len(str(error)) < 300
    finally:
        sys.setrecursionlimit(depth)
    assert time.process_time() - before < 1  # seconds; a hang, not a measurement


def len_of_stack() -> int:
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at its end (character 1): expected a number or one of share"),
        ("share('a')", "at its end (character 11): expected a comparison"),
        ("share('a') > share('b')", "> compares two statistics"),
        ("0.1 < 0.2", "< compares two numbers"),
        ("visibel('a')", "'visibel' is unknown; write visible"),
        ("score <= 0.1", "'score' is unknown; write uncertainty"),
        ("share('a') > nan", "'nan' is unknown; write share, visible, confidence, uncertainty"),
        ("visible(a)", "expected the name of a keypoint in quotes"),
        ("share('') > 0.1", "expected the name of a class in quotes"),
        ("visible('a') > 0.5", "at '> 0.5' (character 14): expected and, or, or the end"),
        ("depth('0.5') > 1", "expected a share of the pixels, from 0 to 1"),
        ("depth(1.5) > 1", "at '1.5) > 1' (character 7): expected a share of the pixels"),
        ("depth > 1", "at '> 1' (character 7): expected ( and a share of the pixels, as in"),
        ("share > 0.1", "at '> 0.1' (character 7): expected ( and the name of a class in quotes"),
        ("share('a') = 1", "no condition has such a character"),
        ("share('a') > 1e400", "too large for a float"),
        ("(" * (MAX_DEPTH + 1), f"over {MAX_DEPTH} parentheses and nots"),
        (" or ".join(["visible('a')"] * (MAX_TESTS + 1)), f"over {MAX_TESTS} conditions"),
        (" " * (MAX_CHARACTERS + 1), f"{MAX_CHARACTERS + 1} characters; it may have"),
    ],
)
def test_a_refusal_names_the_place_and_the_fix(text: str, words: str) -> None:
    with pytest.raises(PredicateError, match=re.escape(words)):
        predicate_from_text(text)


def sent(**options: Any) -> str:
    return query_from_options(cast(StreamOptions, options)).filter.where


def test_limits_of_classes_become_a_part_of_where() -> None:
    assert sent() == ""
    assert sent(where="visible('a')") == "visible('a')"
    assert sent(max_class_uncertainty={"pupil": 0.1}) == "uncertainty('pupil') <= 0.1"
    both = sent(where="visible('a') or share('b') > 0", max_class_uncertainty={"it's": 1, "x": 0})
    assert both == (
        "(visible('a') or share('b') > 0) and uncertainty(\"it's\") <= 1.0"
        " and uncertainty('x') <= 0.0"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "share("}, "where is wrong at its end"),
        ({"where": 3}, "where is 3; give text"),
        ({"where": "visible('a')", "max_class_uncertainty": {"x": -1}}, "'x' is -1; give a limit"),
        ({"max_class_uncertainty": {"x": float("nan")}}, "'x' is nan; give a limit"),
        ({"max_class_uncertainty": {"x": "0.1"}}, "'0.1'; give a number"),
        ({"max_class_uncertainty": {3: 0.1}}, "is 3; give text"),
        ({"max_class_uncertainty": {"": 1}}, "class '', which no predicate can name"),
        ({"max_class_uncertainty": {"a\n": 1}}, "class 'a\\n', which no predicate can name"),
        ({"max_class_uncertainty": [0.1]}, "give a dict of names and limits"),
        ({"max_class_uncertainty": {"x'\"": 1}}, "class 'x\\'\"', which no predicate can name"),
    ],
)
def test_the_client_refuses_what_cannot_be_sent(options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        sent(**options)
