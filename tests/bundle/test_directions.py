"""Directions are added to a bundle whole, keep its id, and are refused where they do not fit."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bundle import BundleError, ManifestError, open_bundle
from bundle.directions import bytes_from_rows
from bundle.files import sha256_of_file
from bundle.manifest import Estimate, MeasuredEdit, digest_of_facts
from bundle.write import add_direction
from engines.fake import fake_bundle
from tests.bundle.refusals import refusal

FILE = "direction-more.f32"
GIVEN = fake_bundle(directions=True).directions["more"]
ONE = Estimate(value=1.0, low=1.0, high=1.0)


def added(folder: Path, name: str = "more", replace: bool = False, **changes: Any) -> None:
    facts = msgspec.structs.replace(GIVEN.facts, **changes)
    add_direction(open_bundle(folder), name, bytes_from_rows(GIVEN.rows), facts, replace)


def measured(*strengths: float) -> list[MeasuredEdit]:
    return [
        MeasuredEdit(strength=s, share=ONE, shown=ONE, unchanged=ONE, miou=ONE) for s in strengths
    ]


def test_what_was_added_is_read_and_the_id_stays(folder: Path) -> None:
    before = open_bundle(folder).manifest.bundle_id
    assert b"directions" not in (folder / "manifest.json").read_bytes()
    added(folder)
    bundle = open_bundle(folder)
    assert bundle.manifest.bundle_id == before
    read = bundle.directions["more"]
    assert read.facts == GIVEN.facts and np.array_equal(read.rows, GIVEN.rows)


def test_a_known_name_is_kept_unless_replacing_and_has_another_digest_then(folder: Path) -> None:
    added(folder)
    first = digest_of_facts(open_bundle(folder).manifest.directions["more"])
    with pytest.raises(BundleError, match="a direction more already; give --replace"):
        added(folder, seed=5)
    added(folder, seed=5, replace=True)
    added(folder, name="other")
    known = open_bundle(folder).manifest.directions
    assert {name: facts.seed for name, facts in known.items()} == {"more": 5, "other": 0}
    assert digest_of_facts(known["more"]) != first == digest_of_facts(known["other"])


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../views"}, {"name": ""}, {"name": "a b"}, {"changes": ""}, {"changes": "a\nb"},
        {"first_row": 3}, {"first_row": 8}, {"end_row": 9}, {"end_row": 0}, {"samples": 0},
        {"strengths": []}, {"strengths": measured(-1, 1)}, {"strengths": measured(1, 0)},
        {"strengths": measured(0, 0)}, {"strengths": measured(0, 101)},
        {"strengths": measured(0, float("nan"))},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_written(folder: Path, changes: dict[str, Any]) -> None:
    before = sorted((file.name, sha256_of_file(file)) for file in folder.iterdir())
    with pytest.raises(ManifestError) as caught:
        added(folder, **changes)
    assert "\n" not in str(caught.value)
    assert sorted((file.name, sha256_of_file(file)) for file in folder.iterdir()) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(folder: Path, editor: Any, value: float) -> None:
    added(folder)
    data = bytearray((folder / FILE).read_bytes())
    struct.pack_into("<f", data, 8, value)
    (folder / FILE).write_bytes(data)
    editor.set("directions|more|file|sha256", sha256_of_file(folder / FILE))
    assert f"{FILE} holds values that are not finite" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file", {"sha256": "x", "size": 4}), ("strengths", 1), ("measured", 0), ("unknown", 1),
        ("first_row", -1), ("options", {}),
    ],
)  # fmt: skip
def test_facts_that_contradict_are_refused(
    folder: Path, editor: Any, key: str, value: object
) -> None:
    added(folder)
    editor.set(f"directions|more|{key}", value)
    assert "directions" in refusal(folder)


def test_a_share_over_one_is_refused(folder: Path, editor: Any) -> None:
    added(folder)
    editor.set("directions|more|strengths|0|miou", {"value": 2.0, "low": 1.0, "high": 3.0})
    assert "directions['more'].strengths at -2 has miou 2.0" in refusal(folder)


def test_a_changed_or_missing_file_is_refused(folder: Path) -> None:
    added(folder)
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "SHA-256" in refusal(folder)
    (folder / FILE).unlink()
    assert FILE in refusal(folder)


def test_too_many_directions_are_refused(folder: Path, editor: Any) -> None:
    added(folder)
    content = editor.read()
    (facts,) = content["directions"].values()
    content["directions"] = {f"d{number}": facts for number in range(65)}
    editor.write(content)
    assert "directions has 65 entries; there may be 64" in refusal(folder)
