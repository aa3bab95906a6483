"""Content table of a calibration: the statistics of its samples, in a file of the bundle.

The file is a zlib stream of little-endian float32 values [columns, samples], column by column:
values of one column resemble each other. Its name has the first digits of its SHA-256, so that a
new table never takes the place of one that a reader is about to open. It does not decide samples
by itself, so it is no part of the bundle id.
"""

import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FileError
from bundle.files import replace_file
from bundle.manifest import MAX_TABLE_SAMPLES, ContentTable, FileEntry

MAX_TABLE_BYTES = 256 << 20  # unpacked
_ITEM = 4  # bytes of a float32


def write_content(folder: Path, content: NDArray[np.float32]) -> ContentTable:
    """Writes content [samples, columns], of the first samples if there are very many. Raises
    OSError."""
    most = min(MAX_TABLE_SAMPLES, MAX_TABLE_BYTES // (_ITEM * content.shape[1]))
    rows = np.ascontiguousarray(content[:most].T, "<f4")
    data = zlib.compress(rows.tobytes(), 6)
    digest = hashlib.sha256(data).hexdigest()
    table = ContentTable(
        name=f"content.{digest[:16]}.zlib",
        file=FileEntry(sha256=digest, size=len(data)),
        columns=rows.shape[0],
        samples=rows.shape[1],
    )
    replace_file(folder / table.name, data)
    return table


def content_from_bytes(data: bytes, table: ContentTable, file: Path) -> NDArray[np.float32]:
    """Content, float32 [samples, columns], of a file whose hash the caller has checked.

    No more is unpacked than the table says. Raises FileError, naming `file`.
    """
    size = table.samples * table.columns * _ITEM
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise FileError(f"{file} does not unpack ({error}); calibrate the bundle again") from error
    if len(unpacked) != size or not unpacker.eof or unpacker.unused_data:
        raise FileError(
            f"{file} does not have {table.samples} samples of {table.columns} values; calibrate "
            "the bundle again"
        )
    content = np.frombuffer(unpacked, "<f4").astype(np.float32)
    if not np.isfinite(content).all():
        raise FileError(f"{file} holds values that are not finite; calibrate the bundle again")
    return np.ascontiguousarray(content.reshape(table.columns, table.samples).T)
