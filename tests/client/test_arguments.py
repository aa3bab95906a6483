"""Arguments are judged before any call, and named with their value and what to give."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from labelmint import Client
from labelmint.errors import Exhausted
from labelmint.torch import LabelStream
from labelmint.wire.retries import Patience, Reconnects, Retries
from tests.client.scripted_service import CLOSED_PORT

OF_CONNECTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"target": 50051}, TypeError, r"target is 50051; give text, as 'localhost:50051', or a list"),
    ({"target": [None]}, TypeError, "target is None; give text"),
    ({"target": "localhost"}, ValueError, "target 'localhost' is not host:port"),
    ({"streams": 0}, ValueError, "streams 0 is under 1"),
    ({"streams": 1.5}, TypeError, r"streams is 1\.5; give a whole number"),
    ({"token": b"secret"}, TypeError, "^the token is of type bytes; give text$"),
    ({"token": "two words"}, ValueError, "give one word"),
    ({"tls": True}, TypeError, r"tls is True; give Tls\(\), or Tls with PEM files"),
    ({"patience": 5.0}, TypeError, r"patience is 5\.0; give Patience\("),
    ({"prefetch_bytes": -1}, ValueError, "prefetch_bytes -1 is under 0"),
    ({"prefetch_bytes": "64M"}, TypeError, "prefetch_bytes is '64M'; give a whole number"),
]


@pytest.mark.parametrize(("given", "kind", "words"), OF_CONNECTIONS, ids=str)
def test_what_no_connection_can_be_made_of_is_refused_when_it_is_given(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """By LabelStream too, not in a worker of some DataLoader later."""
    for make in (Client, LabelStream):
        with pytest.raises(kind, match=words):
            make(**{"target": CLOSED_PORT, **given})


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_no_time_at_all_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="is not over 0; give seconds"):
        Client(CLOSED_PORT, timeout_s=wrong)
    with pytest.raises(TypeError, match="timeout_s is '5'; give a number"):
        Client(CLOSED_PORT, timeout_s="5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size 0 is under 1"),
        ({"batch_size": 2.5}, TypeError, r"batch_size is 2\.5; give a whole number"),
        ({"deadline_s": float("nan")}, ValueError, "deadline_s is nan"),
        ({"deadline_s": "1"}, TypeError, "deadline_s is '1'; give a number"),
        ({"keep_fracton": 0.5}, TypeError, "did you mean keep_fraction"),
    ],
    ids=str,
)
def test_arguments_of_a_stream_are_judged_before_any_call(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with Client(CLOSED_PORT) as client, pytest.raises(kind, match=words):
        client.stream(**given)


def test_generate_needs_a_bound() -> None:
    with Client(CLOSED_PORT) as client, pytest.raises(ValueError, match="has no bound; give count"):
        client.generate(seed=3, keep_fraction=0.5)


@pytest.mark.parametrize("wrong", [0.0, 1.5, float("nan")])
def test_a_fraction_out_of_range_has_no_threshold(wrong: float) -> None:
    with Client(CLOSED_PORT) as client, pytest.raises(ValueError, match="outside"):
        client.model(keep_fraction=wrong)


def test_a_model_is_asked_for_by_name() -> None:
    with Client(CLOSED_PORT) as client, pytest.raises(TypeError, match="name is 3; give text"):
        client.model(3)  # type: ignore[arg-type]


def test_what_a_label_stream_is_given_is_judged_when_it_is_given() -> None:
    with pytest.raises(TypeError, match="transform is 3; give a function of a LabelBatch"):
        LabelStream(CLOSED_PORT, transform=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ignore_above is '0\.2'; give a number"):
        LabelStream(CLOSED_PORT, ignore_above="0.2")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"first_wait_s": 0}, ValueError, "first_wait_s is 0; give finite seconds over 0"),
        ({"first_wait_s": math.inf}, ValueError, "first_wait_s is inf"),
        ({"connect_s": math.nan}, ValueError, "connect_s is nan; give seconds from 0 up"),
        ({"reconnect_s": -1}, ValueError, "reconnect_s is -1"),
        ({"silence_s": "30"}, TypeError, "silence_s is '30'; give a number"),
    ],
)
def test_a_patience_that_waits_for_nothing_or_for_ever_is_refused(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """2,600 calls in 2 s were made with a first wait of -1 s."""
    with pytest.raises(kind, match=words):
        Patience(**given)


def test_a_server_that_asks_for_an_age_to_wait_is_waited_for() -> None:
    """Longer than a clock counts, by a client of endless patience."""
    stop = threading.Event()
    retries = Retries(Patience(math.inf, math.inf), Reconnects(), stop=stop)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Exhausted, match="come later"):
        retries.wait(Exhausted("come later", "RESOURCE_EXHAUSTED", 1e18), "calling again")
