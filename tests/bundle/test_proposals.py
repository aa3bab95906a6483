"""Proposals are added to a bundle whole, keep its id, and are refused where they do not fit."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bundle import BundleError, ManifestError, open_bundle
from bundle.files import sha256_of_file
from bundle.manifest import ProposalFacts
from bundle.proposals import Proposal, bytes_from_score
from bundle.write import add_proposal
from engines.fake import fake_bundle
from tests.bundle.refusals import refusal

FILE = "proposal-rare.f32"
GIVEN = fake_bundle(proposals=True).proposals["rare"]


def added(folder: Path, name: str = "rare", given: Proposal = GIVEN, **changes: Any) -> None:
    data = bytes_from_score(given.score)
    replace = changes.pop("replace", False)
    facts = msgspec.structs.replace(given.facts, **changes)
    add_proposal(open_bundle(folder), name, data, facts, replace)


def test_what_was_added_is_read_and_the_id_stays(folder: Path) -> None:
    before = open_bundle(folder).manifest.bundle_id
    added(folder)
    bundle = open_bundle(folder)
    assert bundle.manifest.bundle_id == before
    read = bundle.proposals["rare"]
    assert read.facts == GIVEN.facts
    assert np.array_equal(read.score.layers[0][0], GIVEN.score.layers[0][0])
    assert bytes_from_score(read.score) == (folder / FILE).read_bytes()


def test_a_known_name_is_kept_unless_replacing(folder: Path) -> None:
    added(folder)
    with pytest.raises(BundleError, match="--replace"):
        added(folder, floor=0.5)
    added(folder, floor=0.5, replace=True)
    added(folder, name="other")
    proposals = open_bundle(folder).proposals
    assert {name: each.facts.floor for name, each in proposals.items()} == {
        "rare": 0.5, "other": 1 / 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../views"}, {"name": ""}, {"name": "a b"}, {"name": "x" * 65}, {"floor": 0.0},
        {"floor": float("nan")}, {"hidden": [4]}, {"outputs": 65}, {"bounds": []},
        {"hidden": [1] * 5}, {"where": "a\nb"}, {"exponent": 1.5},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_written(folder: Path, changes: dict[str, Any]) -> None:
    before = sorted((file.name, sha256_of_file(file)) for file in folder.iterdir())
    with pytest.raises(ManifestError) as caught:
        added(folder, **changes)
    assert "\n" not in str(caught.value)
    assert sorted((file.name, sha256_of_file(file)) for file in folder.iterdir()) == before


def with_content(folder: Path, editor: Any, data: bytes) -> None:
    """Replaces the proposal's file, and its hash, as a hostile tool would."""
    (folder / FILE).write_bytes(data)
    editor.set("proposals|rare|file|sha256", sha256_of_file(folder / FILE))
    editor.set("proposals|rare|file|size", len(data))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 20, 40, -1])
def test_values_that_are_not_finite_are_refused(
    folder: Path, editor: Any, value: float, place: int
) -> None:
    added(folder)
    data = bytearray((folder / FILE).read_bytes())
    places = range(0, len(data), 4)
    struct.pack_into("<f", data, places[place], value)
    with_content(folder, editor, bytes(data))
    assert f"{FILE} holds values that are not finite" in refusal(folder)


def test_a_deviation_of_zero_is_refused(folder: Path, editor: Any) -> None:
    added(folder)
    data = bytearray((folder / FILE).read_bytes())
    struct.pack_into("<f", data, 4 * 16, 0.0)
    with_content(folder, editor, bytes(data))
    assert "deviation" in refusal(folder)


@pytest.mark.parametrize("size", [0, 4, 1 << 20])
def test_a_file_of_another_size_is_refused(folder: Path, editor: Any, size: int) -> None:
    added(folder)
    with_content(folder, editor, bytes(size))
    assert f"proposals['rare'].file.size is {size}" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden", [1 << 30]), ("hidden", [1] * 5), ("hidden", [0]), ("floor", 2),
        ("floor", 0), ("exponent", 2), ("gain", {"value": 1, "low": 2, "high": 3}),
        ("options", {}), ("file", {"sha256": "x", "size": 4}), ("where", ""),
        ("where", "x" * 1001), ("samples", -1), ("unknown", 1),
    ],
)  # fmt: skip
def test_facts_that_contradict_are_refused(
    folder: Path, editor: Any, key: str, value: object
) -> None:
    added(folder)
    editor.set(f"proposals|rare|{key}", value)
    assert key in refusal(folder)


def test_a_changed_or_missing_file_is_refused(folder: Path) -> None:
    added(folder)
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "SHA-256" in refusal(folder)
    (folder / FILE).unlink()
    assert FILE in refusal(folder)


def test_too_many_proposals_are_refused(folder: Path, editor: Any) -> None:
    added(folder)
    content = editor.read()
    (facts,) = content["proposals"].values()
    content["proposals"] = {f"p{number}": facts for number in range(65)}
    editor.write(content)
    assert "proposals has 65 entries; there may be 64" in refusal(folder)


def test_a_name_cannot_leave_the_folder(folder: Path, editor: Any) -> None:
    added(folder)
    content = editor.read()
    content["proposals"] = {"../../secret": content["proposals"]["rare"]}
    editor.write(content)
    assert "is no name" in refusal(folder)


def test_a_manifest_without_proposals_is_as_it_was(folder: Path) -> None:
    assert b"proposals" not in (folder / "manifest.json").read_bytes()
    assert ProposalFacts.__struct_config__.forbid_unknown_fields
