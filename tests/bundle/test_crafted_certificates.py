"""A certificate in a manifest says what its reviews prove, or the bundle is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bundle import open_bundle
from bundle.manifest import MAX_REVIEWS, WeightsFacts
from export.checks.certificate import certificate_from_reviews
from tests.bundle.refusals import refusal

WEIGHTS = WeightsFacts(generator_sha256="a" * 64, interpreter_sha256="b" * 64)
Content = dict[str, Any]


@pytest.fixture
def certified(folder: Path, editor: Any) -> Path:
    rng = np.random.default_rng(1)
    certificate = certificate_from_reviews(
        rng.beta(1, 30, 60), rng.random(60).round(4), [None, 0.9, 0.75, 0.5], WEIGHTS, 0.75, 3
    )
    editor.set("weights", msgspec.to_builtins(WEIGHTS))
    editor.set("certificate", json.loads(msgspec.json.encode(certificate)))
    return folder


def test_an_honest_certificate_is_read(certified: Path) -> None:
    certificate = open_bundle(certified).manifest.certificate
    assert certificate is not None and certificate.thresholds[0].reviewed == 60


CRAFTED: dict[str, Callable[[Content], object]] = {
    "thresholds[1].upper_bound is 0.001; its reviews give": (
        lambda c: c["thresholds"][1].update(upper_bound=0.001)
    ),
    "thresholds[0].mean is": lambda c: c["losses"].__setitem__(0, 1.0),
    "thresholds[0].reviewed is 8192; its reviews give 60": (
        lambda c: c["thresholds"][0].update(reviewed=8192)
    ),
    "thresholds[3].expected_risk is 1e+300": (
        lambda c: c["thresholds"][3].update(expected_risk=1e300)
    ),
    "confidence is 0.999; it must be 0.95": lambda c: c.update(confidence=0.999),
    "thresholds keep [1.0, 0.9, 0.75]; they must keep": lambda c: c["thresholds"].pop(),
    "thresholds keep [1.0, 0.9, 0.75, 0.5, 1.0": (
        lambda c: c["thresholds"].extend(c["thresholds"] * 15)
    ),
    "thresholds are [0.5, 0.9, 0.75, 0.5]; they must be null": (
        lambda c: c["thresholds"][0].update(threshold=0.5)
    ),
    "thresholds are [None, 0.9, 0.75, 0.8]; they must be null, and then not ascending": (
        lambda c: c["thresholds"][3].update(threshold=0.8)
    ),
    "thresholds has 65 values": lambda c: c["thresholds"].extend([c["thresholds"][0]] * 61),
    "losses has 0 values": lambda c: c.update(losses=[]),
    "losses[2] is -0.1": lambda c: c["losses"].__setitem__(2, -0.1),
    "uncertainties[2] is 1e+300": lambda c: c["uncertainties"].__setitem__(2, 1e300),
    "losses has 65537 values": lambda c: c.update(losses=[0.0] * (MAX_REVIEWS + 1)),
    "losses has 61 entries; uncertainties has 60": lambda c: c["losses"].append(0.0),
    "statement": lambda c: c.update(statement="x" * (1 << 20)),
    "generator_sha256 is '\\x1b[2J'": lambda c: c.update(generator_sha256="\x1b[2J"),
}


@pytest.mark.parametrize("words", CRAFTED)
def test_a_crafted_certificate_is_refused_in_one_line(
    certified: Path, editor: Any, words: str
) -> None:
    content = editor.read()
    CRAFTED[words](content["certificate"])
    editor.write(content)
    message = refusal(certified)
    assert message.startswith(f"{certified / 'manifest.json'}: certificate.") and words in message
    assert len(message) < 600


def test_the_longest_certificate_is_computed_again_in_bounded_work(
    certified: Path, editor: Any
) -> None:
    content = editor.read()
    content["certificate"].update(losses=[0.01] * MAX_REVIEWS, uncertainties=[0.1] * MAX_REVIEWS)
    editor.write(content)
    assert "its reviews give" in refusal(certified)
