"""A bundle's folder as the file system shows it: has it changed, is it whole."""

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import MANIFEST
from bundle.open import open_bundle

Stamp = tuple[int, int, int, int]


class WatchedFiles:
    """Asked now and then, tells whether any of the files differs from when it was last asked."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._lock = threading.Lock()
        self._seen: tuple[Stamp | None, ...] = ()

    def changed(self) -> bool:
        """True the first time, and whenever a file was replaced, changed, made or removed."""
        stamps = tuple(_stamp_or_none(path) for path in self._paths)
        with self._lock:
            changed, self._seen = stamps != self._seen, stamps
        return changed


def _stamp_or_none(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


FolderStamp = tuple[tuple[str, int, int, int, int], ...]
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


def stamp_of(folder: Path) -> FolderStamp:
    """Changes whenever the folder or a file in it is replaced or written to. Raises OSError."""
    with os.scandir(folder) as entries:
        stamps = [_stamp(entry) for entry in entries]
    return (_stamp(folder), *sorted(stamps))


def has_manifest(folder: Path) -> bool:
    """Whether this is meant to be a bundle; while it is copied it may not be one yet."""
    return (folder / MANIFEST).is_file()


def is_whole(folder: Path) -> bool:
    """Whether the manifest can be read and every file has its size; hashes are for loading."""
    try:
        open_bundle(folder, verify=False)
    except BundleError:
        return False
    return True


def without_folders(message: str, folder: Path) -> str:
    """An error's message for callers, who are not to learn where files lie here."""
    for path in (folder.resolve(), folder.absolute(), folder):
        named = rf"(?<![\w./-]){re.escape(str(path))}(/|(?![\w.-]))"
        message = re.sub(named, lambda found: "" if found[1] else "the bundle", message)
    return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", message)


def _stamp(file: "os.DirEntry[str] | Path") -> tuple[str, int, int, int, int]:
    try:
        status = file.stat()
    except OSError:  # a link that leads nowhere is none of the bundle's files
        return file.name, 0, 0, 0, 0
    return file.name, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
