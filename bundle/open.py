"""Checked Bundle from a folder: manifest, views, proposals, directions, content of other files.

Whatever is used of a file is what was compared with the manifest: `Bundle.read` hashes the very
bytes that it returns. Files beside those that the manifest lists are never opened.
"""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.content import MAX_TABLE_BYTES, content_from_bytes
from bundle.directions import Direction, direction_from_bytes
from bundle.errors import FileError, ManifestError
from bundle.files import opened_regular_file, read_regular_file, sha256_of_file, sha256_of_stream
from bundle.manifest import (
    DIRECTION,
    MANIFEST,
    PROPOSAL,
    VIEWS,
    ContentTable,
    FileEntry,
    Manifest,
)
from bundle.proposals import Proposal, proposal_from_bytes
from bundle.read import MAX_MANIFEST_BYTES, manifest_from_bytes
from bundle.views import ViewBank, view_bank_from_bytes

_COPY_HINT = "copy the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, manifest, view bank, proposals and directions."""

    path: Path
    manifest: Manifest
    views: ViewBank | None = field(default=None, compare=False)  # None: without a view bank
    proposals: dict[str, Proposal] = field(default_factory=dict, compare=False)  # by name
    directions: dict[str, Direction] = field(default_factory=dict, compare=False)  # by name
    # Content tables that were read, by name: most of those in a bundle are never asked for.
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def entries(self) -> dict[str, FileEntry]:
        """Size and SHA-256 of every file that the manifest lists, by name."""
        return file_entries_of(self.manifest)

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists, for messages. Raises FileError for other names.

        Use the content that `read` returns: the file at the path may have changed.
        """
        if name not in self.entries:
            listed = ", ".join(sorted(self.entries))
            raise FileError(f"{self.path} has no {name}; its files are {listed}")
        return self.path / name

    def read(self, name: str) -> bytes:
        """Content of a file that the manifest lists, with the size and SHA-256 that it says.

        Raises FileError.
        """
        file = self.file(name)
        entry = self.entries[name]
        try:
            with opened_regular_file(file) as stream:
                _refuse_size(file, entry, os.fstat(stream.fileno()).st_size)
                data = stream.read(entry.size + 1)
        except OSError as error:
            raise _unreadable(file, error) from error
        _refuse_size(file, entry, len(data))
        _refuse_hash(file, entry, hashlib.sha256(data).hexdigest())
        return data

    def content(self, table: ContentTable) -> NDArray[np.float32]:
        """Content of a calibration's samples, [samples, columns]. Tables that were read last are
        kept, up to MAX_TABLE_BYTES. Raises FileError."""
        known = self.tables.get(table.name)
        if known is None:
            known = content_from_bytes(self.read(table.name), table, self.file(table.name))
            kept = known.nbytes
            for name, other in reversed(list(self.tables.items())):
                kept += other.nbytes
                if kept > MAX_TABLE_BYTES:
                    self.tables.pop(name, None)
            self.tables[table.name] = known
        return known


def open_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Reads and checks the bundle at `path`.

    The size of every file is compared with the manifest; with `verify`, the SHA-256 as well, and
    content tables are unpacked once, so that a request never finds one that cannot be.
    Raises ManifestError or FileError, in one line that names the file and the field.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    bundle, views = Bundle(folder, manifest), None
    for name, entry in bundle.entries.items():
        _check_file(folder / name, entry, verify)
    if manifest.views is not None:
        codes = bundle.read(VIEWS)
        views = view_bank_from_bytes(codes, bundle.file(VIEWS), manifest.views, manifest.generator)
    proposals = {}
    for name, facts in manifest.proposals.items():
        file = PROPOSAL.format(name)
        proposals[name] = proposal_from_bytes(
            bundle.read(file), bundle.file(file), name, facts, manifest.generator
        )
    directions = {}
    for name, learned in manifest.directions.items():
        file = DIRECTION.format(name)
        directions[name] = direction_from_bytes(
            bundle.read(file), bundle.file(file), name, learned, manifest.generator
        )
    if verify:
        for table in tables_of(manifest):
            content_from_bytes(bundle.read(table.name), table, bundle.file(table.name))
    return Bundle(folder, manifest, views, proposals, directions)


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest, without the other files. Raises ManifestError."""
    file = folder / MANIFEST
    try:
        data = read_regular_file(file, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ManifestError(
            f"{file} cannot be read ({error.strerror}); give a folder that "
            "`python -m export bundle` wrote"
        ) from error
    return manifest_from_bytes(data, str(file))


def file_entries_of(manifest: Manifest) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file that the manifest lists, of whatever kind."""
    proposals, directions = manifest.proposals.items(), manifest.directions.items()
    return (
        manifest.files
        | {name: plan.file for name, plan in manifest.plans.items()}
        | {table.name: table.file for table in tables_of(manifest)}
        | {PROPOSAL.format(name): facts.file for name, facts in proposals}
        | {DIRECTION.format(name): facts.file for name, facts in directions}
    )


def tables_of(manifest: Manifest) -> list[ContentTable]:
    """The content tables of all calibrations, each file once."""
    tables = [c.content for c in manifest.calibrations if c.content is not None]
    return list({table.name: table for table in tables}.values())


def file_entry(file: Path) -> FileEntry:
    """Size and SHA-256 of a file. Raises OSError."""
    return FileEntry(sha256=sha256_of_file(file), size=file.stat().st_size)


def _check_file(file: Path, entry: FileEntry, verify: bool) -> None:
    """Compares the size, before anything is read, and with `verify` the SHA-256."""
    try:
        with opened_regular_file(file) as stream:
            _refuse_size(file, entry, os.fstat(stream.fileno()).st_size)
            if verify:
                _refuse_hash(file, entry, sha256_of_stream(stream))
    except OSError as error:
        raise _unreadable(file, error) from error


def _refuse_size(file: Path, entry: FileEntry, size: int) -> None:
    if size != entry.size:
        raise FileError(f"{file} has {size} bytes, the manifest says {entry.size}; {_COPY_HINT}")


def _refuse_hash(file: Path, entry: FileEntry, found: str) -> None:
    if found != entry.sha256:
        raise FileError(
            f"{file} has SHA-256 {found}, the manifest says {entry.sha256}; {_COPY_HINT}"
        )


def _unreadable(file: Path, error: OSError) -> FileError:
    return FileError(f"{file} cannot be read ({error.strerror}); {_COPY_HINT}")
