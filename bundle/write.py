"""Writing of bundles: readers see the old bundle or the new one, never a part of either."""

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
from bundle.files import replace_file, sync_folder
from bundle.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    PortablePlan,
    SamplingKey,
    ScoreCalibration,
)
from bundle.open import Bundle, file_entry, read_manifest
from bundle.read import manifest_from_bytes


@contextmanager
def staged_folder(out: Path, replace: bool) -> Iterator[Path]:
    """Temporary folder beside `out` that becomes `out` when the block ends without an error.

    Raises BundleError when `out` exists and `replace` is false. After any error `out` is unchanged
    and the temporary folder is gone.
    """
    refuse_existing(out, replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's 0700 is for its owner alone; the server has another
        _move(folder, out, replace)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(out: Path, replace: bool) -> None:
    """Raises BundleError when `out` exists and is no bundle, or `replace` is false."""
    if not out.exists():
        return
    if not replace:
        raise BundleError(f"{out} exists; give --force to replace it, or another --out")
    if not (out / MANIFEST).exists():
        raise BundleError(
            f"{out} exists and is no bundle, so it is not replaced; give another --out"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Checks a manifest, then writes or replaces manifest.json in one step.

    Raises ManifestError before anything is written.
    """
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    manifest_from_bytes(data, MANIFEST)
    replace_file(folder / MANIFEST, data)
    sync_folder(folder)


def add_calibration(folder: Path, calibration: ScoreCalibration, replace: bool) -> None:
    """Adds a calibration to the manifest; calibrations of other options stay.

    Raises BundleError when the bundle has one for these options and `replace` is false.
    """
    with _exclusive(folder):  # two calibrations may finish at the same time
        bundle = Bundle(folder, read_manifest(folder))
        refuse_known_calibration(bundle, calibration.options, replace)
        others = [c for c in bundle.manifest.calibrations if c.options != calibration.options]
        calibrations = [*others, calibration]
        write_manifest(folder, msgspec.structs.replace(bundle.manifest, calibrations=calibrations))


def add_plan(folder: Path, name: str, data: bytes, plan: PortablePlan) -> None:
    """Writes a plan into the bundle and lists it; the bundle id stays.

    Raises ManifestError, OSError.

    A plan of that name is first taken off the list: after a crash there is none, never a plan with
    the hash of another.
    """
    with _exclusive(folder):
        manifest = read_manifest(folder)
        others = {n: p for n, p in manifest.plans.items() if n != name}
        if name in manifest.plans:
            write_manifest(folder, msgspec.structs.replace(manifest, plans=others))
        replace_file(folder / name, data)
        write_manifest(folder, msgspec.structs.replace(manifest, plans=others | {name: plan}))


def refuse_known_calibration(bundle: Bundle, key: SamplingKey, replace: bool) -> None:
    """Raises BundleError when the bundle is calibrated for `key` and `replace` is false."""
    if find_calibration(bundle.manifest, key) is not None and not replace:
        raise BundleError(
            f"{bundle.path} is calibrated for these options already; give --replace to change "
            "the thresholds of its users"
        )


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file in a staged folder, by name."""
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
