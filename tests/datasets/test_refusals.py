"""What cannot be done is one line with the right exit code, and loses nothing."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.fake import FakeOptions, fake_bundle
from labelmint.datasets.folder import Folder
from labelmint.datasets.request import checked_request
from labelmint.errors import LabelmintError
from tests.datasets.folders import Ran, contents, download, made
from tests.service.harness import FakeModel, RunningServer, served


def assert_line(ran: Ran, code: int, words: str) -> None:
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran
    assert words in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "neither --count nor --end-index"),
        ("--count 0", "0 is not in the range x>=1"),
        ("--count 18446744073709551616 --keep-fraction 0.5", "is outside 0 to 2**64 - 1"),
        ("--count 5 --start-index 18446744073709551615 --keep-fraction 0.5", "is over 2**64 - 1"),
        ("--count 5 --views-per-object 4294967296", "views_per_object 4294967296 is outside"),
        ("--count 5 --view front", "view 'front' is unknown"),
        ("--count 5 --view 4294967296", "view 4294967296 is outside"),
        ("--count 5 --format tar", "'tar' is not one of"),
        ("--end-index 5 --start-index 5", "--end-index 5 is not over --start-index 5"),
        ("--count 2 --start-index 18446744073709551615", "is over 2**64 - 1"),
        ("--count 5 --num-shards 2 --shard-index 2", "--shard-index 2 is outside 0 to 1"),
        ("--count 5 --num-shards 2 --keep-fraction 0.5", "cannot be split over --num-shards 2"),
        ("--count 5 --keep-fraction 2", "keep_fraction 2.0 is outside (0, 1]"),
        ("--count 5 --keep-fraction 0.5 --max-uncertainty 1", "exclude each other"),
        ("--count 5 --max-uncertainty nan", "--max-uncertainty nan is not a finite"),
        ("--count 5 --fraction 0.5", "--fraction 0.5 needs --filter"),
        ("--count 5 --jpeg-quality 50", "needs --image-codec jpeg"),
        ("--count 5 --format coco --min-confidence inf", "--min-confidence inf is not a finite"),
        ("--count 5 --min-confidence 0.5", "needs --format coco"),
        ("--count 5 --format png --samples-per-shard 3", "needs --format webd"),
        ("--count 99 --filter research", "--filter research and --count 99 exclude each other"),
        ("--end-index 99 --filter research --keep-fraction 0.5", "exclude each other"),
        ("--end-index 300 --filter research", "keeps none of 300"),
        ("--end-index 99 --filter top-fraction --fraction 0", "--fraction 0.0 is outside (0, 1]"),
        ("--end-index 99 --filter top-fraction --fraction nan", "--fraction nan is not a finite"),
        ("--end-index 9000000000 --filter top-fraction", "ranks 9000000000 samples, over"),
    ],
)
def test_contradictions_are_usage(tmp_path: Path, options: str, words: str) -> None:
    ran = download("localhost:1", tmp_path / "d", *options.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--count 6", "--count 5, not --count 6"),
        ("--end-index 5", "no --end-index, not --end-index 5"),
        ("--count 5 --seed 8", "--seed 7, not --seed 8"),
        ("--count 5 --format png", "--format webdataset, not --format png"),
        ("--count 5 --keep-fraction 0.5", "no --keep-fraction, not --keep-fraction 0.5"),
        ("--count 5 --model other", "--model fake, not --model other"),
    ],
)
def test_another_command_is_refused(
    server: RunningServer, tmp_path: Path, options: str, words: str
) -> None:
    """By a folder that is complete, and by one that is not."""
    out = made(server, tmp_path / "d", "--count", "5", "--seed", "7")
    cut = tmp_path / "cut"
    with served([FakeModel(options=FakeOptions(fail_after_runs=0))]) as failing:
        assert download(failing, cut, "--count", "5", "--seed", "7").code == 1
    for folder in (out, cut):
        before = contents(folder)
        given = options if "--seed" in options else f"{options} --seed 7"
        assert_line(download(server, folder, *given.split()), 5, f"was started with {words}")
        assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--truncation-psi 5", "truncation_psi"),
        ("--truncation-psi 0.5 --keep-fraction 0.5", "calibrate"),
        ("--class-index 1", "class_index"),
        ("--model other", "other"),
    ],
)
def test_what_the_server_refuses_is_4_and_begins_no_folder(
    server: RunningServer, tmp_path: Path, options: str, words: str
) -> None:
    out = tmp_path / "d"
    assert_line(download(server, out, "--count", "5", *options.split()), 4, words)
    made(server, out, "--count", "5")


def test_the_model_found_first_is_the_one_to_name(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--count", "5")
    made(server, out, "--count", "5", "--model", "fake")


def test_another_bundle_is_refused_by_5(server: RunningServer, tmp_path: Path) -> None:
    options = ("--count", "90", "--format", "coco")
    with served([FakeModel(options=FakeOptions(fail_after_runs=4))]) as failing:
        assert download(failing, tmp_path / "d", *options).code == 1
    with served([FakeModel(bundle=fake_bundle(resolution=32))]) as other:
        assert_line(download(other, tmp_path / "d", *options), 5, "was started with bundle sha256:")
    made(server, tmp_path / "d", *options)


def test_folders_of_others_are_left_alone(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = download(server, tmp_path, "--count", "5")
    assert_line(ran, 5, "has other files, such as notes.txt")
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_two_downloads_do_not_share_a_folder(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / ".labelmint").mkdir()
    with (tmp_path / ".labelmint" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # the command's own has to be exclusive
        assert_line(download(server, tmp_path, "--count", "5"), 1, "by another download")
    made(server, tmp_path, "--count", "5")


def test_folders_that_cannot_be_made_are_a_line(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = download(server, tmp_path / "file" / "d", "--count", "5")
    assert_line(ran, 1, "Not a directory")


def test_an_unreachable_server_is_3_and_leaves_the_folder_usable(
    server: RunningServer, tmp_path: Path
) -> None:
    assert_line(download("localhost:1", tmp_path / "d", "--count", "5"), 3, "unreachable")
    made(server, tmp_path / "d", "--count", "5")


def test_files_that_were_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    with served([FakeModel(options=FakeOptions(fail_after_runs=4))]) as failing:
        assert download(failing, tmp_path / "d", "--count", "90").code == 1
    (tmp_path / "d" / ".labelmint" / "samples-000000.tar").write_bytes(b"")
    with served() as server:
        assert_line(
            download(server, tmp_path / "d", "--count", "90"), 5, "another program changed it"
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
REQUEST = checked_request(format="png", count=1)
STATE = {
    "model": "m", "bundle_id": "b", "threshold": None, "next_index": 0, "scored": 0, "kept": 0,
    "mark": {"index.csv": 0}, "class_pixels": {"0": 1},
}  # fmt: skip


@st.composite
def damaged_states(draw: st.DrawFn) -> bytes:
    """A state of this very request with one field that is anything else."""
    state = {**STATE, draw(st.sampled_from([*STATE, "more"])): draw(JSON)}
    return json.dumps({"request": dataclasses.asdict(REQUEST), "state": state}).encode()


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | damaged_states())
def test_any_damaged_state_is_read_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / ".labelmint").mkdir()
    for path in (folder / ".labelmint" / "state.json", folder / "card.json"):
        path.write_bytes(damage)
        try:
            read = Folder(folder, REQUEST)
        except LabelmintError as error:
            assert "is damaged, or not from labelmint" in str(error)
        else:
            assert read.card or (read.state and read.state.kept >= 0)
