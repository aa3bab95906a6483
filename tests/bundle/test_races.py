"""Several writers of one folder, and interruptions anywhere: there is always a whole bundle."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

from bundle import BundleError, open_bundle
from bundle.manifest import MANIFEST, FileEntry, PortablePlan
from bundle.write import add_calibration, add_plan, file_entries, staged_folder, write_manifest
from engines.fake import fake_bundle
from tests.bundle.conftest import with_files
from tests.bundle.test_write import other_calibration
from tests.hangs import HANG_S

ROOT = Path(__file__).parents[2]
WRITERS, ROUNDS = 4, 40


def write_bundle(folder: Path, content: bytes) -> None:
    (folder / "mapping.onnx").write_bytes(content)
    (folder / "labeller.onnx").write_bytes(content * 2)
    write_manifest(folder, with_files(fake_bundle().manifest, folder))


def export(out: Path, number: int, rounds: int, replace: bool) -> int:
    """How many exports to `out` went well; others may only fail because one exists."""
    done = 0
    for round_ in range(rounds):
        try:
            with staged_folder(out, replace) as folder:
                write_bundle(folder, bytes([number, round_]) * 999)
            done += 1
        except BundleError as error:
            assert "exists" in str(error), error
    return done


def only(out: Path) -> None:
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    open_bundle(out)


def test_exports_to_one_folder_leave_one_whole_bundle_at_any_time(tmp_path: Path) -> None:
    out = tmp_path / "exports" / "out"
    assert export(out, 0, 1, False) == 1
    with get_context("spawn").Pool(WRITERS) as pool:
        jobs = [(out, number, ROUNDS, True) for number in range(1, WRITERS + 1)]
        exports = pool.starmap_async(export, jobs)
        looks = 0
        while not exports.ready():
            assert (out / MANIFEST).stat()  # also between two renames
            looks += 1
        assert exports.get(HANG_S) == [ROUNDS] * WRITERS and looks > 100
    only(out)


@pytest.mark.long
def test_of_first_exports_to_one_folder_one_succeeds(tmp_path: Path) -> None:
    with get_context("spawn").Pool(WRITERS) as pool:
        for round_ in range(20):
            out = tmp_path / str(round_) / "out"
            done = pool.starmap(export, [(out, n, 1, False) for n in range(WRITERS)])
            assert sum(done) == 1
            only(out)


INTERRUPTED = """
import sys
from pathlib import Path
from tests.bundle.test_races import export
out = Path(sys.argv[1])
print("begin", flush=True)
export(out, 7, 100_000, True)
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_an_export_that_is_interrupted_anywhere_leaves_a_whole_bundle(
    tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "exports" / "out"
    export(out, 0, 1, False)
    for moment in range(5):
        child = subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-c", INTERRUPTED, str(out)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdout is not None
        with child, child.stdout as said:
            said.readline()
            time.sleep(0.02 * moment)
            child.send_signal(number)
            child.wait(HANG_S)
        open_bundle(out)
        if number is signal.SIGINT:
            only(out)


def test_a_calibration_is_never_added_to_another_bundle(folder: Path) -> None:
    measured = open_bundle(folder)
    added = other_calibration(folder)
    with staged_folder(folder, replace=True) as new:
        write_bundle(new, b"another")
    with pytest.raises(BundleError, match=r"was replaced .* calibrate it again"):
        add_calibration(measured, added, replace=False)
    assert added not in open_bundle(folder).manifest.calibrations


def calibrate(folder: Path, number: int, rounds: int) -> None:
    for round_ in range(rounds):
        try:
            measured = open_bundle(folder, verify=False)
        except BundleError as error:  # replaced between two of its files
            assert "the manifest says" in str(error) or "cannot be read" in str(error), error
            continue
        (known, *_) = measured.manifest.calibrations
        psi = 0.1 + number * 0.1 + round_ * 1e-4
        key = msgspec.structs.replace(known.options, truncation_psi=psi)
        added = msgspec.structs.replace(known, options=key)
        try:
            add_calibration(measured, added, replace=False)
        except BundleError as error:
            assert "was replaced" in str(error)


@pytest.mark.long
def test_calibrations_beside_exports_leave_whole_bundles(folder: Path) -> None:
    with get_context("spawn").Pool(WRITERS) as pool:
        exports = pool.starmap_async(export, [(folder, n, ROUNDS, True) for n in (1, 2)])
        pool.starmap(calibrate, [(folder, n, ROUNDS) for n in (3, 4)])
        assert exports.get(HANG_S) == [ROUNDS, ROUNDS]
    open_bundle(folder)


def test_a_full_disk_leaves_the_old_bundle_and_no_rest(folder: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    before = {name: entry.sha256 for name, entry in file_entries(folder).items()}
    code = (
        "import resource, sys; from pathlib import Path; from bundle.write import *\n"
        "from tests.bundle.test_races import write_bundle\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "with staged_folder(Path(sys.argv[1]), True) as new: write_bundle(new, bytes(8000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert "File too large" in done.stderr and done.returncode == 1
    assert {name: entry.sha256 for name, entry in file_entries(folder).items()} == before
    assert os.listdir(folder.parent) == [folder.name]
    assert msgspec.json.decode((folder / MANIFEST).read_bytes())["format"] == 1


def test_a_plan_is_never_added_to_another_bundle(folder: Path) -> None:
    (graph, entry), *_ = open_bundle(folder).manifest.files.items()
    plan = PortablePlan(
        file=FileEntry(sha256=sha256(b"plan").hexdigest(), size=4),
        graph=graph,
        graph_sha256=entry.sha256,
        precision="float32",
        batch_sizes=[1],
        capabilities=["8.9"],
        tensorrt_rtx="1",
    )
    with staged_folder(folder, replace=True) as new:
        write_bundle(new, b"another")
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=r"was replaced while p\.plan was built; build it again"):
        add_plan(folder, "p.plan", b"plan", plan)
    assert (folder / MANIFEST).read_bytes() == before and not (folder / "p.plan").exists()
