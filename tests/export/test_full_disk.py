"""A full disk ends a command in one line that names the place, and loses nothing.

A limit on the size of files stands in for the disk.
"""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bundle import open_bundle
from export.__main__ import main
from export.checks.calibration import row_columns
from tests.full_disk import files_of_at_most


def export(*words: object) -> None:
    run = CliRunner().invoke(main, [str(word) for word in words])
    assert run.exit_code == 0, run.output


def refused(size: int, *words: object) -> str:
    """The last line of a command that fails because no file may have over `size` bytes."""
    with files_of_at_most(size):
        run = CliRunner().invoke(main, [str(word) for word in words])
    assert run.exit_code == 1 and isinstance(run.exception, SystemExit), run.exception
    return run.stderr.splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize("size", [1_000, 100_000])  # too small for the mapping, for the labeller
def test_an_export_leaves_the_old_bundle(
    tiny_weights: tuple[Path, Path], tmp_path: Path, size: int
) -> None:
    out = tmp_path / "exports" / "b"
    weights = ("--generator", tiny_weights[0], "--interpreter", tiny_weights[1])
    command = ("bundle", *weights, "--out", out, "--no-half", "--parity-samples", 2)
    assert refused(size, *command) == f"Error: {out}: File too large"
    assert not out.parent.exists()
    export(*command)
    before = open_bundle(out).manifest
    assert refused(size, *command, "--force") == f"Error: {out}: File too large"
    assert open_bundle(out).manifest == before and list(out.parent.iterdir()) == [out]


@pytest.mark.long
def test_a_calibration_goes_on_from_the_scores_that_it_could_save(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "exports" / "b"
    weights = ("--generator", tiny_weights[0], "--interpreter", tiny_weights[1])
    export("bundle", *weights, "--out", out, "--no-half", "--parity-samples", 2)
    before = open_bundle(out).manifest
    command = ("calibrate", out, "--samples", 64)
    said = refused(600, *command)
    (saved,) = set(out.parent.iterdir()) - {out}
    assert said == f"Error: {saved}: File too large" and saved.stat().st_size == 600
    rows = 64 * 4 * row_columns(open_bundle(out))  # bytes; the manifest is larger
    assert refused(rows, *command) == f"Error: {out / 'manifest.json'}: File too large"
    assert open_bundle(out).manifest == before and saved.stat().st_size == rows
    assert set(out.parent.iterdir()) == {out, saved}
    export(*command)
    (resumed,) = open_bundle(out).manifest.calibrations
    export(*command, "--replace")
    assert open_bundle(out).manifest.calibrations == [resumed]
    assert list(out.parent.iterdir()) == [out]
