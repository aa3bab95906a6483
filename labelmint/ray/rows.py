"""Rows for Ray's own writers: files of WebDataset, and columns that Hugging Face `datasets` opens.

Enter: rows or tables of `LabelSource` and `Labeller`. Leave: rows for `Dataset.write_webdataset`
and tables for `Dataset.write_parquet`. Needs Pillow, of the extra `cli`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmint.batch import INDEX
from labelmint.errors import MissingExtra
from labelmint.extras import install_from_extra

try:
    from PIL import Image
except ImportError as error:
    raise MissingExtra(
        f"labelmint.ray.rows needs {error.name}: {install_from_extra('cli')}"
    ) from error

_PICTURES = {"image": "png", "mask": "mask.png"}  # column: suffix of its file
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # as `datasets` has them


def webdataset_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row for `Dataset.map` before `Dataset.write_webdataset`: names of files, and what is in
    them.

    Images and masks are PNG files, masks in gray whose values are class ids; other arrays are NPY
    files; numbers are in KEY.json. KEY is the index with at least 12 digits.
    """
    files: dict[str, Any] = {"__key__": f"{row[INDEX]:012d}"}
    numbers: dict[str, Any] = {}
    for name, value in row.items():
        if name in _PICTURES:
            files[_PICTURES[name]] = value  # which the writer encodes
        elif np.ndim(value):
            files[f"{name}.npy"] = value
        else:
            numbers[name] = np.asarray(value).item()
    return {**files, "json": numbers}


def hub_table(table: pa.Table) -> pa.Table:
    """A table for `Dataset.map_batches` with batch_format="pyarrow", before
    `Dataset.write_parquet`.

    Images and masks are PNG bytes, which `cast_column(name, datasets.Image())` opens; arrays,
    which `datasets` cannot read as Ray writes them, are lists of lists.
    """
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in _PICTURES:
            indices = table[INDEX].to_pylist()
            pictures = [
                {"bytes": _png(array), "path": f"{index:012d}.{_PICTURES[name]}"}
                for index, array in zip(indices, column.to_numpy(zero_copy_only=False), strict=True)
            ]
            columns[name] = pa.array(pictures, _PICTURE)
        elif isinstance(column.type, pa.ExtensionType):
            columns[name] = _lists(np.stack(list(column.to_numpy(zero_copy_only=False))))
        else:
            columns[name] = column
    return pa.table(columns)


def _lists(array: npt.NDArray[Any]) -> pa.Array:
    """An array [n, a, b, ...] as n lists of a lists of b and so on."""
    values = pa.array(array.reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        rows = int(np.prod(array.shape[:axis]))
        offsets = np.arange(rows + 1, dtype=np.int32) * array.shape[axis]
        values = pa.ListArray.from_arrays(offsets, values)
    return values


def _png(array: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG")
    return file.getvalue()
