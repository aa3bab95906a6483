"""Writes bundles so that a reader sees the old state or the new one, never half of either."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bundle.calibration import find_calibration
from bundle.errors import BundleError
from bundle.manifest import MANIFEST, Calibration, FileEntry, Manifest, SamplingKey
from bundle.open import Bundle, file_entry, read_manifest
from bundle.read import manifest_from_bytes
from bundle.replace import replace_file, sync_folder


@contextmanager
def staged_folder(out: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well.

    Raises BundleError when `out` exists and `replace` is false; on any error `out` stays as
    it was and the temporary folder is removed.
    """
    refuse_existing(out, replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's 0700 would hide the bundle from the server's user
        _move(folder, out, replace)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(out: Path, replace: bool) -> None:
    """Raises BundleError when writing `out` would lose something."""
    if not out.exists():
        return
    if not replace:
        raise BundleError(f"{out} exists; give --force to replace it, or another --out")
    if not (out / MANIFEST).exists():
        raise BundleError(f"{out} exists and is no bundle; it is not replaced, give another --out")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes or replaces manifest.json in one step. Raises ManifestError when it contradicts
    itself, before anything is written."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    manifest_from_bytes(data, MANIFEST)
    replace_file(folder / MANIFEST, data)
    sync_folder(folder)


def add_calibration(folder: Path, calibration: Calibration, replace: bool) -> None:
    """Puts a calibration into the bundle's manifest; those of other options stay.

    Raises BundleError when these options are calibrated already and `replace` is false.
    """
    with _exclusive(folder):  # two calibrations may end at the same time
        bundle = Bundle(folder, read_manifest(folder))
        refuse_known_calibration(bundle, calibration.options, replace)
        others = [c for c in bundle.manifest.calibrations if c.options != calibration.options]
        calibrations = [*others, calibration]
        write_manifest(folder, msgspec.structs.replace(bundle.manifest, calibrations=calibrations))


def refuse_known_calibration(bundle: Bundle, key: SamplingKey, replace: bool) -> None:
    """Raises BundleError when calibrating would silently change what users get."""
    if find_calibration(bundle.manifest, key) is not None and not replace:
        raise BundleError(
            f"{bundle.path} is calibrated for these options already; give --replace to change "
            "the thresholds that its users get"
        )


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of everything in a staged folder, by name."""
    return {file.name: file_entry(file) for file in sorted(folder.iterdir())}


def _move(folder: Path, out: Path, replace: bool) -> None:
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    refuse_existing(out, replace)
    if out.exists():
        old = folder.with_name(folder.name + ".old")
        out.rename(old)
        try:
            folder.rename(out)
        except BaseException:
            old.rename(out)
            raise
        shutil.rmtree(old)
    else:
        folder.rename(out)
    sync_folder(out.parent)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
