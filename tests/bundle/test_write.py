"""Writing leaves the old state or the new one, and never overwrites what was not asked for."""

import stat
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle import BundleError, ManifestError, open_bundle
from bundle.content import content_from_bytes
from bundle.errors import FileError
from bundle.files import made_folder
from bundle.manifest import ContentTable, FileEntry, ScoreCalibration
from bundle.write import add_calibration, staged_folder, write_manifest


def other_calibration(folder: Path, psi: float = 0.5) -> ScoreCalibration:
    known = open_bundle(folder).manifest.calibrations[0]
    key = msgspec.structs.replace(known.options, truncation_psi=psi, truncation_cutoff=2)
    return msgspec.structs.replace(known, options=key)


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundle"
    with staged_folder(out, replace=False) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()
    assert (out / "a").read_text() == "a"
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert list(out.parent.iterdir()) == [out]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(KeyError), staged_folder(out, replace=False) as folder:
        (folder / "a").write_text("a")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_bundle(folder: Path) -> None:
    before = open_bundle(folder).manifest
    with pytest.raises(KeyError), staged_folder(folder, replace=True):
        raise KeyError
    assert open_bundle(folder).manifest == before
    assert list(folder.parent.iterdir()) == [folder]


def test_an_existing_bundle_is_kept_unless_replacing(folder: Path) -> None:
    with pytest.raises(BundleError, match="--force"), staged_folder(folder, replace=False):
        pytest.fail("the block must not run")
    with staged_folder(folder, replace=True) as new:
        (new / "a").write_text("a")
    assert [file.name for file in folder.iterdir()] == ["a"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    with pytest.raises(BundleError, match="no bundle"), staged_folder(tmp_path, replace=True):
        pytest.fail("the block must not run")
    assert (tmp_path / "thesis").exists()


def test_a_bundle_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(BundleError, match="--force"), staged_folder(out, replace=False):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]


def test_a_manifest_that_contradicts_itself_is_not_written(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    manifest = open_bundle(folder).manifest
    with pytest.raises(ManifestError, match="bundle_id"):
        write_manifest(folder, msgspec.structs.replace(manifest, bundle_id="sha256:0"))
    assert (folder / "manifest.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 3


def test_a_manifest_can_be_read_by_the_servers_user(folder: Path) -> None:
    assert stat.S_IMODE((folder / "manifest.json").stat().st_mode) == 0o644


def test_a_calibration_is_added_and_the_others_stay(folder: Path) -> None:
    before = open_bundle(folder).manifest
    added = other_calibration(folder)
    add_calibration(open_bundle(folder), added, replace=False)
    after = open_bundle(folder).manifest
    assert after.calibrations == [*before.calibrations, added]
    assert after.bundle_id == before.bundle_id


def test_a_known_calibration_changes_only_when_replacing(folder: Path) -> None:
    known = open_bundle(folder).manifest.calibrations[0]
    changed = msgspec.structs.replace(known, quantiles=[0.25, 0.75])
    with pytest.raises(BundleError, match="--replace"):
        add_calibration(open_bundle(folder), changed, replace=False)
    assert known in open_bundle(folder).manifest.calibrations
    add_calibration(open_bundle(folder), changed, replace=True)
    calibrations = open_bundle(folder).manifest.calibrations
    assert changed in calibrations and known not in calibrations


def test_the_content_of_a_calibration_is_a_file_of_the_bundle(folder: Path) -> None:
    before = open_bundle(folder).manifest
    content = np.random.default_rng(0).random((40, 15), np.float32)
    add_calibration(open_bundle(folder), other_calibration(folder), False, content)
    opened = open_bundle(folder)
    table = opened.manifest.calibrations[-1].content
    assert table is not None and (table.samples, table.columns) == (40, 15)
    assert opened.manifest.bundle_id == before.bundle_id
    np.testing.assert_array_equal(opened.content(table), content)
    assert opened.content(table) is opened.content(table)
    (folder / table.name).write_bytes((folder / table.name).read_bytes()[:-1] + b"x")
    with pytest.raises(FileError, match=f"{table.name} has SHA-256"):
        open_bundle(folder)


def test_the_content_of_a_replaced_calibration_stays_for_one_more(folder: Path) -> None:
    added, names = other_calibration(folder), list[str]()
    for number in range(3):
        content = np.full((20, 15), number, np.float32)
        add_calibration(open_bundle(folder), added, number > 0, content)
        table = open_bundle(folder).manifest.calibrations[-1].content
        assert table is not None
        names.append(table.name)
    assert sorted(file.name for file in folder.glob("content.*")) == sorted(names[1:])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"noise", "does not unpack"),
        (zlib.compress(bytes(4 * 24 - 1)), "does not have 3 samples of 8 values"),
        (zlib.compress(bytes(1 << 24)), "does not have 3 samples of 8 values"),
        (zlib.compress(bytes(4 * 24)) + b"more", "does not have 3 samples of 8 values"),
        (zlib.compress(bytes(4 * 24))[:-2], "does not have 3 samples of 8 values"),
        (zlib.compress(np.full(24, np.nan, "<f4").tobytes()), "not finite"),
    ],
)
def test_a_table_that_is_none_is_refused(data: bytes, words: str) -> None:
    entry = FileEntry(sha256="0" * 64, size=len(data))
    table = ContentTable(name="content.0.zlib", file=entry, columns=8, samples=3)
    with pytest.raises(FileError, match=f"somewhere.*{words}.*calibrate the bundle again"):
        content_from_bytes(data, table, Path("somewhere"))


def test_a_block_that_fails_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for content in (False, True):
        with pytest.raises(KeyboardInterrupt), made_folder(tmp_path / "old" / "new" / "deep"):
            if content:
                (tmp_path / "old" / "new" / "file").touch()
            raise KeyboardInterrupt
        assert (tmp_path / "old" / "new").exists() is content and (tmp_path / "old").exists()
        assert not (tmp_path / "old" / "new" / "deep").exists()
    with pytest.raises(BundleError), staged_folder(tmp_path / "a" / "b" / "bundle", False):
        raise BundleError("refused")
    assert not (tmp_path / "a").exists()
