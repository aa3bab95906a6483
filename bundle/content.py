"""Content table of a calibration: the statistics of its samples, in a file of the bundle.

The file is a zlib stream of little-endian float32 values [columns, samples], column by column:
values of one column resemble each other. Its name has the first digits of its SHA-256, so that a
new table never takes the place of one that a reader is about to open. It does not decide samples
by itself, so it is no part of the bundle id.

An opened bundle keeps the tables that requests ask for, up to MAX_TABLE_BYTES of them.
"""

import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FileError
from bundle.files import replace_file
from bundle.manifest import MAX_TABLE_SAMPLES, ContentTable, FileEntry, Heads

MAX_TABLE_BYTES = 256 << 20  # unpacked
MAX_ALL_TABLES_BYTES = 1 << 30  # of a bundle, unpacked: each is, once, when the bundle is verified
_ITEM = 4  # bytes of a float32


def table_bytes(table: ContentTable) -> int:
    """Size of a table's values, unpacked."""
    return _ITEM * table.samples * table.columns


def most_packed_bytes(size: int) -> int:
    """More than any packing of `size` bytes by zlib takes, whose own bound is 4 percent over."""
    return size + (size >> 4) + 64


def columns_of_heads(heads: Heads | None) -> int:
    """Statistics of a sample that a graph with these heads computes, see engines.content."""
    if heads is None or heads.boxes == 0:
        return 0
    scored = int(heads.score_source is not None)
    classes = 0 if heads.segmentation is None else len(heads.segmentation.classes)
    points = 0 if heads.keypoints is None else len(heads.keypoints.names)
    return scored + classes * (1 + scored) + points + len(heads.depth_quantiles)


def rank_of_share(share: float, values: int) -> int:
    """Rank of a quantile among this many values, 1 for the smallest: the first that at least this
    share of them is not over. Products are rounded, so that 0.1 of 70 is 7."""
    return max(1, math.ceil(round(share * values, 6)))


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
    size = table_bytes(table)
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
