"""Detects changed files and folders by their file system status, without reading them."""

import math
import os
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

FileStamp = tuple[int, int, int, int]  # device, inode, modification time in ns, bytes
FolderStamp = tuple[tuple[str, FileStamp | None], ...]  # the folder, then its files by name

MAX_FILES = 1024  # of a folder; bundles have under ten. Each is looked at in every poll.

SETTLE_S = 2.0  # more than a tick of any file system's clock, FAT's included


class TooManyFiles(OSError):
    """A folder has more files than a bundle can have."""


class WatchedFiles:
    """Tells whether any of a few files changed since the last call of `changed`."""

    def __init__(self, paths: Sequence[Path], settle_s: float = SETTLE_S) -> None:
        self._paths, self._settle_s = tuple(paths), settle_s
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] = ()
        self._again_at = math.inf  # on time.monotonic's clock

    def changed(self) -> bool:
        """True the first time, and whenever a file was replaced, written, created or removed; and
        once more `settle_s` later, because of what was written within the same tick of the file
        system's clock."""
        # With the time of the last change of the status, which nobody can set: tools that copy
        # files may keep the time of modification, and an inode's number is used again.
        stamps = tuple((_stamp(path), _status_changed_ns(path)) for path in self._paths)
        now = time.monotonic()
        with self._lock:
            if stamps != self._seen:
                self._seen, self._again_at = stamps, now + self._settle_s
                return True
            if now >= self._again_at:
                self._again_at = math.inf
                return True
        return False


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


def _status_changed_ns(file: Path) -> int | None:
    try:
        return file.stat().st_ctime_ns
    except OSError:
        return None
