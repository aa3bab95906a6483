"""Proposals and directions of a dishonest bundle are refused when it is opened, before anything is
computed from them for each request or sample."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from bundle import open_bundle
from bundle.files import sha256_of_file
from bundle.manifest import digest_of_facts
from bundle.proposals import proposal_bytes
from tests.bundle.refusals import refusal
from tests.bundle.test_directions import added as add_known_direction
from tests.bundle.test_proposals import added as add_known_proposal

W_DIM = 16
WIDE = [1024] * 4


@pytest.fixture
def learned(folder: Path) -> Path:
    """A bundle with the proposal "rare" and the direction "more"."""
    add_known_proposal(folder)
    add_known_direction(folder)
    return folder


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("share", {"value": 0, "low": -1, "high": 1}, "share is from -1; it must not be negative"),
        ("gain", {"value": -2, "low": -3, "high": 0}, "gain is from -3"),
        ("examined", {"value": -2, "low": -3e38, "high": 0}, "examined is from -3e+38"),
        (
            "generated_share",
            {"value": 1, "low": 0, "high": 2},
            "generated_share is up to 2; it must be from 0 to 1",
        ),
        ("bounds", [[]] * 257, "bounds"),
        ("bounds", [[{"output": 0, "low": None, "high": None}] * 65], "bounds"),
        (
            "bounds",
            [[{"output": 0, "low": None, "high": None}] * 64] * 17,
            "bounds has 1088 entries in all its lists; there may be 1024",
        ),
        ("bounds", [[{"output": 1, "low": None, "high": None}]], "bounds has output 1"),
        (
            "bounds",
            [[{"output": -1, "low": None, "high": None}]],
            "proposals['rare'].bounds[0][0].output is -1",
        ),
        ("where", "a\x1b[2Jb", "where is 'a\\x1b[2Jb'"),
        ("where", "a\u202eb", "where is 'a\\u202eb'"),
        ("seed", -1, "seed"),
    ],
)
def test_crafted_facts_of_a_proposal_are_refused(
    learned: Path, editor: Any, field: str, value: object, words: str
) -> None:
    editor.set(f"proposals|rare|{field}", value)
    assert words in refusal(learned)


@pytest.mark.parametrize("kind", ["proposals|rare", "directions|more", "calibrations|0"])
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("truncation_cutoff", 99, "options.truncation_cutoff is 99; it must be in [0, 10]"),
        ("class_index", 0, "options.class_index is 0; the generator has 0 classes"),
        ("view_mode", "bank", "options.view_mode is bank, but the bundle has no views"),
        ("truncation_psi", 1e300, "truncation_psi"),
        ("views_per_object", 1 << 40, "views_per_object"),
    ],
)
def test_options_that_the_generator_lacks_are_refused(
    learned: Path, editor: Any, kind: str, field: str, value: object, words: str
) -> None:
    editor.set(f"{kind}|options|{field}", value)
    assert words in refusal(learned)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("proposals|rare|samples", -1, "proposals['rare'].samples is -1; it must be >= 1"),
        ("proposals|rare|seed", 1 << 64, "proposals['rare'].seed has 65 bits; a seed has 64"),
        ("directions|more|seed", 10**300, "directions['more'].seed has 997 bits"),
        ("calibrations|0|seed", 1 << 64, "calibrations[0].seed has 65 bits"),
        ("proposals|rare|share|low", "x", "proposals['rare'].share.low is 'x'; expected `float`"),
        ("directions|more", 3, "directions['more'] is 3; expected `object`"),
        ("directions|more|file|size", 1 << 70, "directions['more'].file.size is 118"),
        ("directions|more|file", {"size": 1}, "sha256` - at `directions['more'].file`"),
        ("directions|more|strengths|0|share|high", None, "['more'].strengths[0].share.high is"),
        ("files|w\x1b[2J\n.onnx", {"size": -1}, "files['w\\x1b[2J\\n.onnx']"),
        ("files|" + "w" * 900, 7, f"files['{'w' * 79}] is 7"),
        ("tools|torch", [], "tools['torch'] has 0 values; expected `str`"),
    ],
)
def test_a_wrong_entry_is_named(
    learned: Path, editor: Any, path: str, value: object, words: str
) -> None:
    editor.set(path, value)
    message = refusal(learned)
    assert words in message and "[...]" not in message and len(message) < 600


@pytest.mark.parametrize("number", ["1e400", "-1e999", "1" + 5000 * "0"])
@pytest.mark.parametrize("field", ["proposals|rare|floor", "directions|more|strengths|0|strength"])
def test_a_number_that_no_float_holds_is_named(
    learned: Path, editor: Any, field: str, number: str
) -> None:
    editor.set(field, "NUMBER")
    editor.path.write_text(editor.path.read_text().replace('"NUMBER"', number))
    message = refusal(learned)
    name = field.split("|")[1]
    assert f"['{name}']" in message and f"is {number[:80]}" in message and len(message) < 400


@pytest.mark.parametrize("value", [1e7, -3e38, 1.0000001e6])
def test_a_move_without_measure_is_refused(learned: Path, editor: Any, value: float) -> None:
    """Times a strength it would be infinite, and so would every sample of a request."""
    file = learned / "direction-more.f32"
    data = bytearray(file.read_bytes())
    struct.pack_into("<f", data, 12, value)
    file.write_bytes(data)
    editor.set("directions|more|file|sha256", sha256_of_file(file))
    message = refusal(learned)
    assert f"{file} has a largest value of" in message and "learn the direction again" in message


def test_a_move_that_moves_nothing_is_refused(learned: Path, editor: Any) -> None:
    file = learned / "direction-more.f32"
    file.write_bytes(bytes(file.stat().st_size))
    editor.set("directions|more|file|sha256", sha256_of_file(file))
    assert f"{file} has a largest value of 0" in refusal(learned)


def test_files_that_are_read_whole_have_a_bound_all_together(learned: Path, editor: Any) -> None:
    """They may be sparse: they cost a hostile tool nothing, and the server all its memory."""
    content, size = editor.read(), proposal_bytes(W_DIM, WIDE, 1)
    known = content["proposals"]["rare"]
    wide = known | {"hidden": WIDE, "file": {"sha256": "0" * 64, "size": size}}
    content["proposals"] = {f"p{number}": wide for number in range(64)}
    for name in content["proposals"]:
        (learned / f"proposal-{name}.f32").touch()
        os.truncate(learned / f"proposal-{name}.f32", size)
    editor.write(content)
    assert "proposals and directions have" in refusal(learned)
    assert "over 268435456; export the bundle again, and learn fewer" in refusal(learned)


@pytest.mark.parametrize("kind", ["proposals", "directions"])
@pytest.mark.parametrize(
    "name",
    ["a\x1b[2J", "a\nb", "a" * (1 << 20), "", ".", "..", "a/b", "a\\b", "\x00", "ä", "a\u202e"],
)
def test_names_that_are_none_are_refused_in_one_line(
    learned: Path, editor: Any, kind: str, name: str
) -> None:
    content = editor.read()
    content[kind] = {name: next(iter(content[kind].values()))}
    editor.write(content)
    message = refusal(learned)
    assert f"{kind}: " in message and "is no name" in message
    assert message.isprintable() and len(message) < 600


def test_names_that_differ_in_case_alone_are_two(learned: Path) -> None:
    add_known_direction(learned, "MORE", seed=5)
    bundle = open_bundle(learned)
    assert {name: each.facts.seed for name, each in bundle.directions.items()} == {
        "more": 0, "MORE": 5,
    }  # fmt: skip


def test_the_last_of_a_name_that_is_there_twice_is_the_only_one(learned: Path) -> None:
    file = learned / "manifest.json"
    known = file.read_bytes()
    (facts,) = open_bundle(learned).manifest.directions.values()
    twice = known.replace(b'"directions": {', b'"directions": {"more": 7, ', 1)
    file.write_bytes(twice)
    assert "directions" in refusal(learned)
    file.write_bytes(known)
    assert open_bundle(learned).manifest.directions == {"more": facts}


def test_a_digest_is_made_once_and_is_that_of_the_facts(learned: Path) -> None:
    """Each request compares it: of crafted facts it takes longer than all else."""
    bundle = open_bundle(learned)
    for each in (bundle.proposals["rare"], bundle.directions["more"]):
        assert each.digest is each.digest == digest_of_facts(each.facts)
