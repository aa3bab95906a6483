"""Detects changed files and folders by their file system status, without reading them."""

import os
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

FileStamp = tuple[int, int, int, int]  # device, inode, modification time in ns, bytes
FolderStamp = tuple[tuple[str, FileStamp | None], ...]  # the folder, then its files by name

MAX_FILES = 1024  # of a folder; bundles have under ten. Each is looked at in every poll.


class TooManyFiles(OSError):
    """A folder has more files than a bundle can have."""


class WatchedFiles:
    """Tells whether any of a few files changed since the last call of `changed`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._lock = threading.Lock()
        self._seen: tuple[FileStamp | None, ...] = ()

    def changed(self) -> bool:
        """True the first time, and whenever a file was replaced, written, created or removed."""
        stamps = tuple(_stamp(path) for path in self._paths)
        with self._lock:
            changed, self._seen = stamps != self._seen, stamps
        return changed


def stamp_of_folder(folder: Path) -> FolderStamp:
    """A value that changes when the folder or a file in it is replaced or written.

    Raises OSError if the folder cannot be listed, TooManyFiles.
    """
    with os.scandir(folder) as entries:
        stamps = [(entry.name, _stamp(entry)) for entry in islice(entries, MAX_FILES + 1)]
    if len(stamps) > MAX_FILES:
        raise TooManyFiles(f"{folder} has over {MAX_FILES} files, so it is no bundle")
    return ((folder.name, _stamp(folder)), *sorted(stamps, key=lambda stamp: stamp[0]))


def _stamp(file: "os.DirEntry[str] | Path") -> FileStamp | None:
    """None for a file that is missing, and for a link that leads nowhere."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
