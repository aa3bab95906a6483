"""Calibration scores the samples that the service would draw, and resumes after a kill."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bundle import BundleError
from bundle.manifest import ScoreCalibration
from bundle.open import Bundle, open_bundle
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.errors import NotFiniteError
from engines.fake import fake_bundle
from engines.protocol import EngineResult
from export.__main__ import main as export_command
from export.checks.calibration import (
    SavedRows,
    calibration_from_engine,
    identity_of_scores,
    open_saved_scores,
    quantiles_from_scores,
    row_columns,
    rows_from_engine,
)
from export.errors import ExportError
from tests.interrupts import INTERRUPTIBLE

BUNDLE = fake_bundle()
FAKE = EngineOptions(runtime="fake", batch_sizes=(8,))
GENERATOR = BUNDLE.manifest.generator


def test_scores_are_those_of_indices_from_0_in_any_batch() -> None:
    options = default_options(GENERATOR, seed=5)
    mapping, engine = open_mapping(BUNDLE, FAKE), open_engine(BUNDLE, FAKE)
    rows = rows_from_engine(BUNDLE, engine, mapping, options, 21, SavedRows(1))
    for i in range(21):
        ws = ws_from_indices(mapping, GENERATOR, options, [i])
        alone = engine.run(ws, np.full(1, np.inf, np.float32), ("uncertainty",))
        assert rows[i, 0] == alone.arrays["uncertainty"][0]


def test_a_calibration_states_its_samples() -> None:
    options = default_options(GENERATOR, seed=5)
    mapping, engine = open_mapping(BUNDLE, FAKE), open_engine(BUNDLE, FAKE)
    calibration, content = calibration_from_engine(BUNDLE, engine, mapping, options, 64)
    assert content is not None and content.shape == (64, row_columns(BUNDLE))
    assert (calibration.seed, calibration.samples) == (5, 64)
    assert calibration.options.views_per_object == 1


def test_4096_samples_give_1025_levels_from_least_to_largest() -> None:
    scores = np.random.default_rng(0).random(4096, np.float32)
    quantiles = quantiles_from_scores(scores)
    assert len(quantiles) == 1025 and quantiles == sorted(quantiles)
    assert np.float32(quantiles[0]) == scores.min()
    assert np.float32(quantiles[-1]) == scores.max()


def test_bundles_without_a_score_are_refused() -> None:
    images = fake_bundle(heads=False)
    mapping, engine = open_mapping(images, FAKE), open_engine(images, FAKE)
    with pytest.raises(ExportError, match="no score_source"):
        calibration_from_engine(images, engine, mapping, default_options(GENERATOR), 64)


class Counting:
    """An engine that counts its samples, and is interrupted before it exceeds `most`."""

    def __init__(self, most: int = 10**9) -> None:
        self._engine, self.most, self.samples = open_engine(BUNDLE, FAKE), most, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, ws: Any, limits: Any, outputs: Any) -> EngineResult:
        if self.samples + len(ws) > self.most:
            raise KeyboardInterrupt
        self.samples += len(ws)
        return self._engine.run(ws, limits, outputs)


def calibrated(
    bundle: Bundle, engine: Any, samples: int, **options: Any
) -> tuple[ScoreCalibration, bytes]:
    """The calibration, and the bytes of its content."""
    sampling = default_options(GENERATOR, **options)
    mapping = open_mapping(BUNDLE, FAKE)
    identity = identity_of_scores(bundle, engine, sampling)
    with open_saved_scores(bundle.path, identity, row_columns(bundle), samples) as saved:
        found, content = calibration_from_engine(bundle, engine, mapping, sampling, samples, saved)
    assert content is not None
    return found, content.tobytes()


@pytest.mark.parametrize("saved", [56, 53])  # samples; the second is within a batch
def test_a_killed_calibration_resumes_from_its_saved_batches(tmp_path: Path, saved: int) -> None:
    """In the same batches, since a sample's place in one can decide the last bit of its score."""
    bundle = replace(BUNDLE, path=tmp_path / "demo")
    whole = calibrated(bundle, Counting(), 100)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        calibrated(bundle, Counting(most=60), 100)
    (left,) = tmp_path.iterdir()
    os.truncate(left, saved * left.stat().st_size // 56 + 3)  # and a part of the next one
    rest = Counting()
    assert calibrated(bundle, rest, 100) == whole
    assert rest.samples == 100 - (saved - saved % 8) and list(tmp_path.iterdir()) == []


def test_a_calibration_of_fewer_samples_than_are_saved_measures_its_own_last_batch(
    tmp_path: Path,
) -> None:
    bundle = replace(BUNDLE, path=tmp_path / "demo")
    whole = calibrated(bundle, Counting(), 50)
    with pytest.raises(KeyboardInterrupt):
        calibrated(bundle, Counting(most=60), 100)
    rest = Counting()
    assert calibrated(bundle, rest, 50) == whole
    assert rest.samples == 50 % 8 and list(tmp_path.iterdir()) == []


def test_scores_are_saved_for_their_own_options_alone(tmp_path: Path) -> None:
    bundle = replace(BUNDLE, path=tmp_path / "demo")
    with pytest.raises(KeyboardInterrupt):
        calibrated(bundle, Counting(most=60), 100)
    other = Counting()
    calibrated(bundle, other, 100, seed=1)
    assert other.samples == 100 and len(list(tmp_path.iterdir())) == 1


def test_two_calibrations_of_the_same_options_do_not_mix(tmp_path: Path) -> None:
    with (
        open_saved_scores(tmp_path / "demo", "same", 1, 100),
        pytest.raises(ExportError, match="being calibrated"),
        open_saved_scores(tmp_path / "demo", "same", 1, 100),
    ):
        pass


@pytest.mark.parametrize("known", [0, 60])
@pytest.mark.parametrize(
    "error", [ExportError("refused"), NotFiniteError("not finite", (3,)), BundleError("replaced")]
)
def test_a_refused_calibration_leaves_nothing_behind(
    tmp_path: Path, known: int, error: Exception
) -> None:
    with pytest.raises(type(error)), open_saved_scores(tmp_path / "demo", "same", 1, 100) as saved:
        saved.append(np.zeros((known, 1), np.float32))
        (file,) = tmp_path.iterdir()
        assert f"scores are saved in {file};" in saved.text(known, 100)
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["sparse", "endless", "pipe", "link"])
def test_a_file_that_is_no_file_of_scores_is_neither_read_to_its_end_nor_followed(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others"
    others.write_bytes(b"six bytes"[:6])
    with open_saved_scores(tmp_path / "demo", "same", 1, 100):
        (left,) = tmp_path.glob(".demo.*")
    if kind == "sparse":
        left.touch()
        os.truncate(left, 1 << 40)
    elif kind == "pipe":
        os.mkfifo(left)
    else:
        left.symlink_to("/dev/zero" if kind == "endless" else others)
    with open_saved_scores(tmp_path / "demo", "same", 1, 100) as saved:
        assert len(saved.rows) == (100 if kind == "sparse" else 0)
        saved.append(np.zeros((1, 1), np.float32))
    assert others.read_bytes() == b"six by"
    reasons = {"sparse": "", "pipe": "(not a regular file)"}
    assert reasons.get(kind, "(Too many levels of symbolic links)") in capsys.readouterr().err


def test_a_calibration_that_is_interrupted_before_its_first_score_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt), open_saved_scores(tmp_path / "demo", "same", 1, 100):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_succeeds_where_scores_cannot_be_saved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = replace(BUNDLE, path=Path("/proc/demo"))
    assert calibrated(bundle, Counting(), 64)[0].samples == 64
    assert "scores are not saved" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("exporting", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_interrupted_calibration_goes_on_to_the_same_bytes(
    tiny_bundle: Path, tiny_weights: tuple[Path, Path], tmp_path: Path, exporting: bool
) -> None:
    bundles = [tmp_path / name for name in ("interrupted", "whole")]
    generator, interpreter = map(str, tiny_weights)

    def command(bundle: Path) -> list[str]:
        if not exporting:
            return ["calibrate", str(bundle), "--seed", "1", "--samples", "1024", "--replace"]
        files = ["--generator", generator, "--interpreter", interpreter, "--out", str(bundle)]
        return ["bundle", *files, "--calibrate", "1024", "--no-half", "--parity-samples", "1"]

    if not exporting:
        for bundle in bundles:
            shutil.copytree(tiny_bundle, bundle)
    process = subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-m", "export", *command(bundles[0])],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    while not re.search(r"[1-9]\d*/1024", said) and (read := process.stderr.read(1)):
        said += read
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    (scores,) = tmp_path.glob(".*")
    known = scores.stat().st_size // (4 * row_columns(open_bundle(tiny_bundle)))
    assert 0 < known < 1024
    assert said.splitlines()[-1] == (
        f"interrupted: {known} of 1024 scores are saved in {scores}; the same command goes on from "
        "there"
    )
    assert bundles[0].exists() != exporting
    for bundle, first in zip(bundles, (known, 0), strict=True):
        done = CliRunner().invoke(export_command, command(bundle))
        assert done.exit_code == 0 and f" {first}/1024 [" in done.stderr, done.stderr
    contents = [bundle.joinpath("manifest.json").read_bytes() for bundle in bundles]
    assert contents[0] == contents[1] and not list(tmp_path.glob(".*"))


def test_more_samples_than_memory_holds_are_refused_in_a_line(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "tiny")
    words = ["calibrate", str(tmp_path / "tiny"), "--samples", "9" * 12, "--psi", "0.3"]
    result = CliRunner().invoke(export_command, words)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    last = result.output.splitlines()[-1]
    assert last.startswith("Error: not enough memory: Unable to allocate")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
