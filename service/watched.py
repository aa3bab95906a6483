"""Notices that files were replaced, by what the file system says of them."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

Stamp = tuple[int, int, int, int]


class WatchedFiles:
    """Asked now and then, tells whether any of the files differs from when it was last asked."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._lock = threading.Lock()
        self._seen: tuple[Stamp | None, ...] = ()

    def changed(self) -> bool:
        """True the first time, and whenever a file was replaced, changed, made or removed."""
        stamps = tuple(_stamp(path) for path in self._paths)
        with self._lock:
            changed, self._seen = stamps != self._seen, stamps
        return changed


def _stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
