"""A file that only grows: its length is all that a resumed download needs to know of it.

Formats of one large file are written as lines first, which `join_lines` puts together at the end.
"""

from __future__ import annotations

import os
from pathlib import Path

from labelmint.errors import WrongFolder


class AppendFile:
    """A file open for appending, unbuffered: data survives a killed process once `append` returns.

    Opening it truncates the file to a known length.
    """

    def __init__(self, path: Path, length: int) -> None:
        """Opens or creates the file and truncates it to length bytes.

        Raises:
            WrongFolder: the file is shorter.
            OSError: the file cannot be opened.
        """
        self.path, self.length = path, length
        self._file = path.open("ab", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        if size < length:
            self.close()
            raise WrongFolder(
                f"{path} has {size} bytes, but {length} were written: another program changed it; "
                "start again in another folder"
            )
        self._file.truncate(length)

    def append(self, data: bytes) -> None:
        """Writes all of data. Raises OSError, after which the file may have a part of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.length += len(data)

    def close(self) -> None:
        """Closes the file; may be called again."""
        self._file.close()


def join_lines(lines: Path, path: Path, head: bytes, between: bytes, tail: bytes) -> None:
    """Replaces a file by all lines of another, `between` before each but the first.

    Raises OSError.
    """
    partial = lines.with_name(path.name)
    with partial.open("wb") as file, lines.open("rb") as source:
        file.write(head)
        for number, line in enumerate(source):
            file.write((between if number else b"") + line)
        file.write(tail)
    os.replace(partial, path)
