"""A file that only grows, so that its length is all there is to remember of it."""

from __future__ import annotations

import os
from pathlib import Path

from labelmint.errors import LabelmintError


class GrowingFile:
    """Appends to a file from a known length on; what lay beyond is cut off.

    Nothing is buffered here: what `append` returned from survives the death of the process.
    """

    def __init__(self, path: Path, length: int) -> None:
        """Opens or makes the file. Raises LabelmintError when it is shorter, OSError."""
        self.path, self.length = path, length
        self._file = path.open("ab", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        if size < length:
            self.close()
            raise LabelmintError(
                f"{path} has {size} bytes of the {length} that were written; it was changed, "
                "start anew in another folder"
            )
        self._file.truncate(length)

    def append(self, data: bytes) -> None:
        """Writes all of data; raises OSError, and the file then has some of it at most."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.length += len(data)

    def close(self) -> None:
        """Closes the file; harmless when closed."""
        self._file.close()
