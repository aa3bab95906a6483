"""A bundle's folder -> a checked Bundle; nothing is used that was not verified."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from bundle.errors import FileError, ManifestError
from bundle.manifest import MANIFEST, FileEntry, Manifest
from bundle.read import MAX_MANIFEST_BYTES, manifest_from_bytes
from bundle.views import ViewBank, view_bank_from_folder

_AGAIN = "copy the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest, and where its files lie."""

    path: Path
    manifest: Manifest
    views: ViewBank | None = field(default=None, compare=False)  # None: it has no view bank

    def file(self, name: str) -> Path:
        """Path of a listed file; raises FileError when the bundle does not carry it."""
        if name not in self.manifest.files:
            listed = ", ".join(sorted(self.manifest.files))
            raise FileError(f"{self.path} has no {name}; its files are {listed}")
        return self.path / name


def open_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Reads and checks the bundle at `path`; `verify` compares every file's size and SHA-256.

    Raises ManifestError or FileError, in one line that names the file and the field.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        _check_size(folder / name, entry)
        if verify:
            _check_hash(folder / name, entry)
    if manifest.views is None:
        return Bundle(folder, manifest)
    views = view_bank_from_folder(folder, manifest.views, manifest.generator)
    return Bundle(folder, manifest, views)


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest alone. Raises ManifestError."""
    file = folder / MANIFEST
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"{file} cannot be read ({error.strerror}); a bundle is a folder that "
            "`python -m export bundle` wrote"
        ) from error
    return manifest_from_bytes(data, str(file))


def file_entry(file: Path) -> FileEntry:
    """Size and SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        return FileEntry(sha256=digest.hexdigest(), size=stream.tell())


def _check_size(file: Path, entry: FileEntry) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise FileError(f"{file} cannot be read ({error.strerror}); {_AGAIN}") from error
    if size != entry.size:
        raise FileError(f"{file} has {size} bytes, the manifest says {entry.size}; {_AGAIN}")


def _check_hash(file: Path, entry: FileEntry) -> None:
    try:
        found = file_entry(file).sha256
    except OSError as error:
        raise FileError(f"{file} cannot be read ({error.strerror}); {_AGAIN}") from error
    if found != entry.sha256:
        raise FileError(f"{file} has SHA-256 {found}, the manifest says {entry.sha256}; {_AGAIN}")
