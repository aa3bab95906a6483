"""`export inspect` shows what a bundle says, and lets none of it control the terminal."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bundle.manifest import MANIFEST
from export.__main__ import main
from tests.service.test_process import bundle_at

HOSTILE = "\x1b[2Jfree\r\nforged: line\u202e"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_at(tmp_path / "bundle")


def inspected(bundle: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["inspect", str(bundle)])
    return result.exit_code, result.output


def test_what_a_manifest_says_is_shown_without_terminal_sequences(bundle: Path) -> None:
    lines = inspected(bundle)[1].count("\n")
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    parity = {name: None for name in ("w_max_difference", "image_max_steps", "mask_mismatch_share")}
    parity |= {name: None for name in ("image_share_within_1", "near_tie_share")}
    parity |= {name: None for name in ("uncertainty_max_excess", "keypoints_max_px")}
    manifest |= {"licences": [HOSTILE]}
    manifest["parity"] = [
        parity | {"graph": HOSTILE, "runtime": HOSTILE, "samples": 1, "depth_max_relative": None}
    ]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    code, output = inspected(bundle)
    assert code == 0 and output.count("\n") == lines + 1, output
    assert all(line.isprintable() for line in output.split("\n"))
    assert "\\x1b[2Jfree\\r\\nforged: line\\u202e" in output


def test_a_field_that_nobody_knows_is_named_in_one_line(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest["certificate"] = {HOSTILE: 1}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    code, output = inspected(bundle)
    assert code == 1 and output.count("\n") == 1 and output[:-1].isprintable(), output
