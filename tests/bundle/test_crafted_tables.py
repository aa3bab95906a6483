"""Content tables of a dishonest bundle are refused when it is opened, also for what they cost."""

import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bundle import open_bundle
from bundle.__main__ import main
from bundle.content import MAX_TABLE_BYTES, columns_of_heads, most_packed_bytes, rank_of_share
from bundle.files import sha256_of_file
from bundle.manifest import MAX_TABLE_SAMPLES, Heads
from bundle.write import add_calibration
from engines.content import content_columns
from engines.fake import fake_bundle
from tests.bundle.refusals import refusal
from tests.bundle.test_directions import added as add_known_direction
from tests.bundle.test_proposals import added as add_known_proposal
from tests.bundle.test_write import other_calibration

COLUMNS, SAMPLES = 15, 40


@pytest.fixture
def table(folder: Path, editor: Any) -> str:
    """Name of the table of the last calibration of `folder`."""
    content = np.random.default_rng(0).random((SAMPLES, COLUMNS), np.float32)
    add_calibration(open_bundle(folder), other_calibration(folder), False, content)
    return str(editor.read()["calibrations"][-1]["content"]["name"])


def forged(folder: Path, editor: Any, name: str, data: bytes) -> None:
    """Replaces the table's file, and its hash, as a hostile tool would."""
    (folder / name).write_bytes(data)
    editor.set("calibrations|-1|content|file|sha256", sha256_of_file(folder / name))
    editor.set("calibrations|-1|content|file|size", len(data))


VALUES = np.zeros(SAMPLES * COLUMNS, "<f4")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"noise", "does not unpack"),
        (b"", "does not have 40 samples of 15 values"),
        (zlib.compress(VALUES[:-1].tobytes()), "does not have 40 samples of 15 values"),
        (zlib.compress(bytes(1 << 20)), "does not have 40 samples of 15 values"),
        (zlib.compress((VALUES + np.float32(np.nan)).tobytes()), "not finite"),
        (zlib.compress((VALUES - np.float32(np.inf)).tobytes()), "not finite"),
    ],
)
def test_a_table_that_is_none_is_refused_when_the_bundle_is_verified(
    folder: Path, editor: Any, table: str, data: bytes, words: str
) -> None:
    """Before, only the requests that asked for it were, and `verify` said that all is well."""
    forged(folder, editor, table, data)
    assert f"{folder / table} " in refusal(folder) and words in refusal(folder)
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "calibrate the bundle again" in result.output


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("columns", 14, "columns is 14; the graph computes 15 statistics"),
        ("columns", 1 << 31, "columns"),
        ("samples", 4097, "samples is 4097; the calibration has 4096"),
        ("samples", 0, "samples is 0"),
        ("file", {"sha256": "0" * 64, "size": 1 << 31}, "2400 bytes of values never pack to so"),
        ("file", {"sha256": "0" * 64, "size": -1}, "must not be negative"),
        ("name", "a" * 2000, "content.name"),
        ("name", "content.\x1b[2J.zlib", "name is 'content.\\x1b[2J.zlib'"),
        ("name", "content.\n.zlib", "name is 'content.\\n.zlib'"),
        ("name", "manifest.json", "must be a plain file name"),
        ("name", "labeller.onnx", "files and plans lack"),
    ],
)
def test_facts_of_a_table_that_contradict_are_refused(
    folder: Path, editor: Any, table: str, field: str, value: object, words: str
) -> None:
    editor.set(f"calibrations|-1|content|{field}", value)
    assert words in refusal(folder)


@pytest.mark.parametrize("name", ["proposal-rare.f32", "direction-more.f32"])
def test_a_table_is_no_file_of_a_proposal_or_direction(
    folder: Path, editor: Any, table: str, name: str
) -> None:
    """Else its own hash was compared with nothing."""
    add_known_proposal(folder)
    add_known_direction(folder)
    editor.set("calibrations|-1|content|name", name)
    assert f"content.name is {name!r}" in refusal(folder)


def test_two_tables_of_one_name_are_one_and_the_same(folder: Path, editor: Any, table: str) -> None:
    content = editor.read()
    first, last = content["calibrations"][0], content["calibrations"][-1]
    first["content"] = last["content"]
    editor.write(content)
    assert len(open_bundle(folder).manifest.calibrations) > 1
    first["content"] = last["content"] | {"file": {"sha256": "0" * 64, "size": 9}}
    editor.write(content)
    assert f"content.name is {table!r}, as of an earlier one that differs" in refusal(folder)
    first["content"] = last["content"] | {"samples": 41}
    editor.write(content)
    assert "as of an earlier one that differs" in refusal(folder)


def test_tables_have_a_bound_all_together(folder: Path, editor: Any, table: str) -> None:
    content = editor.read()
    (*_, last) = content["calibrations"]
    size = 4 * MAX_TABLE_SAMPLES * COLUMNS
    for number in range((1 << 30) // size + 1):
        more = last["content"] | {"name": f"c{number}.zlib", "samples": MAX_TABLE_SAMPLES}
        options = last["options"] | {"truncation_psi": 0.001 * number}
        content["calibrations"].append(
            last | {"content": more, "options": options, "samples": MAX_TABLE_SAMPLES}
        )
    editor.write(content)
    assert "bytes of content, over 1073741824" in refusal(folder)


def test_tables_that_were_asked_for_are_kept_up_to_a_bound(folder: Path, table: str) -> None:
    bundle = open_bundle(folder)
    assert not bundle.tables, "verifying keeps none"
    bundle.tables["older"] = np.zeros(MAX_TABLE_BYTES // 8, np.float32)  # pages that nobody touches
    bundle.tables["newer"] = np.zeros(MAX_TABLE_BYTES // 8, np.float32)
    (known,) = (c.content for c in bundle.manifest.calibrations if c.content is not None)
    bundle.content(known)
    assert [*bundle.tables] == ["newer", table]


def test_a_folder_with_the_name_of_an_old_table_is_left_alone(folder: Path, table: str) -> None:
    (folder / "content.0.zlib").mkdir()
    content = np.zeros((SAMPLES, COLUMNS), np.float32)
    add_calibration(open_bundle(folder), other_calibration(folder), True, content)
    assert (folder / "content.0.zlib").is_dir() and (folder / table).exists()


@pytest.mark.parametrize("size", [4, 1 << 10, 1 << 20, (1 << 20) + 3])
def test_no_packing_is_over_its_bound(size: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    for level in range(10):
        assert len(zlib.compress(data, level)) <= most_packed_bytes(size)


@pytest.mark.parametrize(
    "without", ["segmentation", "keypoints", "score_source", "boxes", "depth_quantiles", ""]
)
def test_the_columns_of_heads_are_those_of_the_graph(without: str) -> None:
    manifest = fake_bundle().manifest
    assert manifest.heads is not None
    empty = {"boxes": 0, "depth_quantiles": []}
    gone = {without: empty.get(without)} if without else {}
    heads: Heads = msgspec.structs.replace(manifest.heads, **gone)
    expected = content_columns(msgspec.structs.replace(manifest, heads=heads))
    assert columns_of_heads(heads) == len(expected)


@pytest.mark.parametrize(
    ("share", "values", "rank"),
    [(0.1, 70, 7), (0.1, 71, 8), (0.5, 4, 2), (0.9, 4096, 3687), (1.0, 5, 5), (1e-12, 4096, 1)],
)
def test_a_quantile_is_the_first_value_that_its_share_is_not_over(
    share: float, values: int, rank: int
) -> None:
    assert rank_of_share(share, values) == rank
