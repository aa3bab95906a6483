"""Checked Bundle from a folder: the manifest, the view bank, and the paths of the other files."""

from dataclasses import dataclass, field
from pathlib import Path

from bundle.errors import FileError, ManifestError
from bundle.files import sha256_of_file
from bundle.manifest import MANIFEST, FileEntry, Manifest
from bundle.read import MAX_MANIFEST_BYTES, manifest_from_bytes
from bundle.views import ViewBank, view_bank_from_folder

_COPY_HINT = "copy the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, manifest and view bank."""

    path: Path
    manifest: Manifest
    views: ViewBank | None = field(default=None, compare=False)  # None: without a view bank

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. Raises FileError for other names."""
        entries = file_entries_of(self.manifest)
        if name not in entries:
            listed = ", ".join(sorted(entries))
            raise FileError(f"{self.path} has no {name}; its files are {listed}")
        return self.path / name


def open_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Reads and checks the bundle at `path`.

    The size of every file is compared with the manifest; with `verify`, the SHA-256 as well.
    Raises ManifestError or FileError, in one line that names the file and the field.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, entry in file_entries_of(manifest).items():
        _check_size(folder / name, entry)
        if verify:
            _check_hash(folder / name, entry)
    if manifest.views is None:
        return Bundle(folder, manifest)
    views = view_bank_from_folder(folder, manifest.views, manifest.generator)
    return Bundle(folder, manifest, views)


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest, without the other files. Raises ManifestError."""
    file = folder / MANIFEST
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"{file} cannot be read ({error.strerror}); give a folder that "
            "`python -m export bundle` wrote"
        ) from error
    return manifest_from_bytes(data, str(file))


def file_entries_of(manifest: Manifest) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file that the manifest lists, plans included."""
    return manifest.files | {name: plan.file for name, plan in manifest.plans.items()}


def file_entry(file: Path) -> FileEntry:
    """Size and SHA-256 of a file. Raises OSError."""
    return FileEntry(sha256=sha256_of_file(file), size=file.stat().st_size)


def _check_size(file: Path, entry: FileEntry) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise FileError(f"{file} cannot be read ({error.strerror}); {_COPY_HINT}") from error
    if size != entry.size:
        raise FileError(f"{file} has {size} bytes, the manifest says {entry.size}; {_COPY_HINT}")


def _check_hash(file: Path, entry: FileEntry) -> None:
    try:
        found = sha256_of_file(file)
    except OSError as error:
        raise FileError(f"{file} cannot be read ({error.strerror}); {_COPY_HINT}") from error
    if found != entry.sha256:
        raise FileError(
            f"{file} has SHA-256 {found}, the manifest says {entry.sha256}; {_COPY_HINT}"
        )
