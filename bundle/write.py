"""Writing of bundles: readers see the old bundle or the new one, never a part of either."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.calibration import find_calibration
from bundle.content import write_content
from bundle.errors import BundleError
from bundle.files import (
    exchange_folders,
    made_folder,
    name_file,
    replace_file,
    sync_folder,
)
from bundle.manifest import (
    DIRECTION,
    MANIFEST,
    PROPOSAL,
    Certificate,
    DirectionFacts,
    FileEntry,
    Manifest,
    PortablePlan,
    ProposalFacts,
    SamplingKey,
    ScoreCalibration,
)
from bundle.open import Bundle, file_entries_of, file_entry, read_manifest
from bundle.read import manifest_from_bytes


@contextmanager
def staged_folder(out: Path, replace: bool) -> Iterator[Path]:
    """Temporary folder beside `out` that becomes `out` when the block ends without an error.

    Raises BundleError when `out` exists and `replace` is false. After any error `out` is unchanged
    and the temporary folder is gone.
    """
    refuse_existing(out, replace)
    with made_folder(out.parent):
        folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
        try:
            folder.mkdir(0o700)
            yield folder
            folder.chmod(0o755)  # the server has another user
            _move(folder, out, replace)
        except OSError as error:
            name_file(error, out)
            raise
        finally:  # `folder` is the new bundle after an error, else the old one, if there was one
            try:
                shutil.rmtree(folder, ignore_errors=True)
            except BaseException:  # an interruption, which may not leave a part behind
                shutil.rmtree(folder, ignore_errors=True)
                raise


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
    replace_file(folder / MANIFEST, _checked_bytes(manifest))
    sync_folder(folder)


def _checked_bytes(manifest: Manifest) -> bytes:
    """Content of manifest.json, as it will be read. Raises ManifestError."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    manifest_from_bytes(data, MANIFEST)
    return data


def add_calibration(
    bundle: Bundle,
    calibration: ScoreCalibration,
    replace: bool,
    content: NDArray[np.float32] | None = None,
) -> None:
    """Adds a calibration of `bundle` to the manifest in its folder; those of other options stay.

    content [samples, columns] of its samples becomes a file. That of a calibration which is
    replaced stays beside it, because a server may be about to read it, until the next one.

    Raises BundleError when another bundle is there by now, or when it has a calibration for these
    options and `replace` is false.
    """
    with _exclusive(bundle.path):  # two calibrations may finish at the same time
        now = Bundle(bundle.path, read_manifest(bundle.path))
        if now.manifest.bundle_id != bundle.manifest.bundle_id:
            raise BundleError(
                f"{bundle.path} was replaced by {now.manifest.bundle_id} during its calibration; "
                "calibrate it again"
            )
        refuse_known_calibration(now, calibration.options, replace)
        others = [c for c in now.manifest.calibrations if c.options != calibration.options]
        if content is not None:
            table = write_content(bundle.path, content)
            calibration = msgspec.structs.replace(calibration, content=table)
        new = msgspec.structs.replace(now.manifest, calibrations=[*others, calibration])
        write_manifest(bundle.path, new)
        listed = file_entries_of(now.manifest).keys() | file_entries_of(new).keys()
        for file in bundle.path.glob("content.*.zlib"):
            if file.name not in listed and not file.is_dir():
                file.unlink()


def add_certificate(bundle: Bundle, certificate: Certificate) -> None:
    """Puts a certificate into the manifest of `bundle`, in place of an earlier one; the bundle id
    stays. Raises BundleError when another bundle is there by now."""
    with _exclusive(bundle.path):
        now = read_manifest(bundle.path)
        if now.bundle_id != bundle.manifest.bundle_id or now.weights != bundle.manifest.weights:
            raise BundleError(f"{bundle.path} was replaced by {now.bundle_id}; certify it again")
        write_manifest(bundle.path, msgspec.structs.replace(now, certificate=certificate))


def add_plan(folder: Path, name: str, data: bytes, plan: PortablePlan) -> None:
    """Writes a plan into the bundle and lists it; the bundle id stays.

    Raises BundleError when the plan's graph is no longer the bundle's, and OSError.

    A plan of that name is first taken off the list: after a crash there is none, never a plan with
    the hash of another.
    """
    with _exclusive(folder):
        manifest = read_manifest(folder)
        graph = manifest.files.get(plan.graph)
        if graph is None or graph.sha256 != plan.graph_sha256:
            raise BundleError(f"{folder} was replaced while {name} was built; build it again")
        others = {n: p for n, p in manifest.plans.items() if n != name}
        if name in manifest.plans:
            write_manifest(folder, msgspec.structs.replace(manifest, plans=others))
        replace_file(folder / name, data)
        write_manifest(folder, msgspec.structs.replace(manifest, plans=others | {name: plan}))


def add_proposal(
    bundle: Bundle, name: str, data: bytes, facts: ProposalFacts, replace: bool
) -> None:
    """Writes a proposal into the bundle's folder and lists it; the bundle id stays.

    Raises ManifestError for a name or facts that do not fit the bundle; BundleError when another
    bundle is there by now, or when it has a proposal of this name and `replace` is false; OSError.

    A proposal of that name is first taken off the list, as plans are.
    """
    _add_learned(bundle, "proposals", name, data, facts, replace)


def add_direction(
    bundle: Bundle, name: str, data: bytes, facts: DirectionFacts, replace: bool
) -> None:
    """Writes a direction into the bundle's folder and lists it, as add_proposal does."""
    _add_learned(bundle, "directions", name, data, facts, replace)


_LEARNED = {"proposals": ("proposal", PROPOSAL), "directions": ("direction", DIRECTION)}


def _add_learned(
    bundle: Bundle,
    field: str,
    name: str,
    data: bytes,
    facts: ProposalFacts | DirectionFacts,
    replace: bool,
) -> None:
    """field: of the manifest, a key of _LEARNED."""
    with _exclusive(bundle.path):
        now = Bundle(bundle.path, read_manifest(bundle.path))
        if now.manifest.bundle_id != bundle.manifest.bundle_id:
            raise BundleError(
                f"{bundle.path} was replaced by {now.manifest.bundle_id} while {name} was fitted; "
                "fit it again"
            )
        refuse_known(now, field, name, replace)
        before = getattr(now.manifest, field)
        others = {n: each for n, each in before.items() if n != name}
        listed = msgspec.structs.replace(now.manifest, **{field: others | {name: facts}})
        _checked_bytes(listed)  # before anything is written
        if name in before:
            write_manifest(bundle.path, msgspec.structs.replace(now.manifest, **{field: others}))
        replace_file(bundle.path / _LEARNED[field][1].format(name), data)
        write_manifest(bundle.path, listed)


def refuse_known(bundle: Bundle, field: str, name: str, replace: bool) -> None:
    """Raises BundleError when the bundle has this name in a field of the manifest, "proposals" or
    "directions", and `replace` is false."""
    if name in getattr(bundle.manifest, field) and not replace:
        raise BundleError(
            f"{bundle.path} has a {_LEARNED[field][0]} {name} already; give --replace to change "
            "the samples of its users, or another --name"
        )


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
    with _exclusive(out.parent):  # exports take turns from here
        refuse_existing(out, replace)
        if not out.exists():
            folder.rename(out)
        else:
            with _exclusive(out):  # a calibration may be writing its manifest
                exchange_folders(folder, out)
    sync_folder(out.parent)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder that has this path; without one on file systems that lack locks.

    Raises OSError.
    """
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                yield
                return
        finally:
            os.close(descriptor)
