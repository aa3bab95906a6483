"""Data sets as Parquet files, as Hugging Face `datasets` opens them: a fixed number of rows each.

Enter: samples. Leave: data/train-000000.parquet and so on, whose columns are those of
`schema_from_model`.

Until a file has all its rows, they are in the scratch folder, because a Parquet file cannot be
appended to. A row is a line of JSON, in which every picture is its length, and then the pictures:

    {"index": 7, "image": 312, "mask": 80, "uncertainty": 0.1}\n<312 bytes><80 bytes>
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelmint.codec import Array
from labelmint.datasets.append_file import AppendFile
from labelmint.datasets.folder import DownloadState, Folder
from labelmint.datasets.request import Request
from labelmint.datasets.samples import (
    Sample,
    encoded_image,
    image_suffix,
    outputs_from_model,
    png_from_mask,
    shortest,
)
from labelmint.datasets.viewpoint import viewpoint_columns, viewpoint_from_sample
from labelmint.model import Camera, Model

_GROUP_ROWS, _GROUP_BYTES = 100, 64 << 20  # of a row group: what is in memory at once
_ROWS = "rows"  # in the scratch folder
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # as `datasets` has them
Row = dict[str, Any]  # by column; pictures and depth as bytes


def schema_from_model(model: Model, request: Request) -> pa.Schema:
    """The columns. Lists of lists are [K, 3] and [h, w].

    Pictures are marked for `datasets`, which derives all other features from the types.
    """
    outputs, viewpoint = outputs_from_model(model, request), viewpoint_columns(model, request)
    types = {
        "index": pa.uint64(),
        "image": _PICTURE,
        "mask": _PICTURE,
        "keypoints": pa.list_(pa.list_(pa.float32())),
        "depth": pa.list_(pa.list_(pa.float16())),
        "uncertainty": pa.float32(),
        "object": pa.uint64(),
        "view": pa.int32(),
        "camera": pa.struct({name: pa.float32() for name in Camera._fields}),
        "weight": pa.float32(),
    }
    fields = {name: kind for name, kind in types.items() if name in {"index", *outputs, *viewpoint}}
    pictures = {name: {"_type": "Image"} for name, kind in fields.items() if kind == _PICTURE}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": pictures}})})


class ParquetWriter:
    """Writes Parquet files. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        assert request.samples_per_shard, "checked_request fills it in"
        self._folder, self._request, self._palette = folder, request, model.palette()
        self._data = folder.path / "data"
        self._data.mkdir(exist_ok=True)
        self._schema = schema_from_model(model, request)
        self._shapes = {"keypoints": (len(model.keypoints), 3), "depth": model.label_size}
        self._number, self._samples = divmod(state.kept, request.samples_per_shard)
        path, length = folder.scratch / _ROWS, state.mark.get("bytes", 0)
        done = self._data / parquet_name(request, self._number)
        if length and done.exists():  # completed after the last commit
            path.write_bytes(b"".join(_bytes_from_row(r) for r in _stored(done, self._samples)))
        self._rows = AppendFile(path, length)

    def encoded(self, sample: Sample) -> bytes:
        """The row of a sample, as bytes of the scratch file."""
        row: Row = {
            "index": sample.index,
            "image": encoded_image(sample.image, self._request),
            **viewpoint_from_sample(sample, self._request),
        }
        if sample.mask is not None:
            row["mask"] = png_from_mask(sample.mask, self._palette)
        if sample.keypoints is not None:
            row["keypoints"] = _bytes_of(sample.keypoints, "<f4")
        if sample.depth is not None:
            row["depth"] = _bytes_of(sample.depth, "<f2")
        if sample.uncertainty is not None:
            row["uncertainty"] = sample.uncertainty
        return _bytes_from_row({name: row[name] for name in self._schema.names})

    def add(self, encoded: bytes) -> None:
        """Writes the next sample; raises OSError."""
        self._rows.append(encoded)
        self._samples += 1
        if self._samples == self._request.samples_per_shard:
            self._seal()

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {"bytes": self._rows.length}

    def finish(self) -> None:
        """Completes the last file; a data set without samples has one without rows."""
        if self._samples or not self._number:
            self._seal()

    def close(self) -> None:
        """Closes the scratch file."""
        self._rows.close()

    def _seal(self) -> None:
        name = parquet_name(self._request, self._number)
        partial = self._folder.scratch / name
        with pq.ParquetWriter(
            partial, self._schema, compression="zstd", use_dictionary=False
        ) as file:
            for rows in _groups(self._rows.path):
                file.write_table(self._table(rows))
        os.replace(partial, self._data / name)
        self._rows.close()
        self._rows = AppendFile(self._rows.path, 0)
        self._number, self._samples = self._number + 1, 0

    def _table(self, rows: list[Row]) -> pa.Table:
        suffixes = {"image": image_suffix(self._request), "mask": "mask.png"}
        columns = []
        for field in self._schema:
            values = [row[field.name] for row in rows]
            if field.type == _PICTURE:
                paths = [f"{row['index']:012d}.{suffixes[field.name]}" for row in rows]
                columns.append(pa.StructArray.from_arrays([values, paths], fields=list(_PICTURE)))
            elif field.name in self._shapes:
                columns.append(_lists(b"".join(values), field.type, self._shapes[field.name]))
            else:
                columns.append(pa.array(values, field.type))
        return pa.Table.from_arrays(columns, schema=self._schema)


def parquet_name(request: Request, number: int) -> str:
    """Name of Parquet file `number`, counted from 0; it differs between shards of a request."""
    return f"train-{request.shard_prefix}{number:06d}.parquet"


def _lists(data: bytes, kind: pa.ListType, shape: tuple[int, int]) -> pa.Array:
    """Lists of lists of this shape, of the numbers in data."""
    height, width = shape
    dtype = np.dtype(kind.value_type.value_type.to_pandas_dtype())
    numbers = np.frombuffer(data, dtype.newbyteorder("<"))
    rows = len(numbers) // (height * width)
    inner = pa.ListArray.from_arrays(_offsets(rows * height, width), pa.array(numbers))
    return pa.ListArray.from_arrays(_offsets(rows, height), inner)


def _offsets(count: int, length: int) -> pa.Array:
    return pa.array(np.arange(count + 1, dtype=np.int32) * length)


def _bytes_of(array: Array, dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def _bytes_from_row(row: Row) -> bytes:
    head = {name: len(v) if isinstance(v, bytes) else v for name, v in row.items()}
    pictures = [v for v in row.values() if isinstance(v, bytes)]
    return b"".join([json.dumps(head).encode(), b"\n", *pictures])


_PICTURES = ("image", "mask", "keypoints", "depth")  # columns that are bytes in a row


def _groups(path: Path) -> Iterator[list[Row]]:
    """The rows of a scratch file, as many at a time as a row group has."""
    rows: list[Row] = []
    size = 0
    with path.open("rb") as file:
        while line := file.readline():
            row = json.loads(line)
            for name in [name for name in row if name in _PICTURES]:
                row[name] = file.read(row[name])
                size += len(row[name])
            rows.append(row)
            if len(rows) == _GROUP_ROWS or size >= _GROUP_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def _stored(path: Path, count: int) -> Iterator[Row]:
    """The first rows of a Parquet file, as they were in the scratch file."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1):
            if not count:
                return
            count -= 1
            row: Row = {}  # in the order of the columns
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if isinstance(column, pa.ListArray):
                    row[name] = column.flatten().flatten().to_numpy().tobytes()
                else:
                    row[name] = _scalar(column[0].as_py(), column.type)
            yield row


def _scalar(value: Any, kind: pa.DataType) -> Any:
    """A value as in a row: pictures as bytes, numbers with the fewest digits."""
    if isinstance(value, dict):
        found = {name: _scalar(part, kind.field(name).type) for name, part in value.items()}
        return found.get("bytes", found)
    return shortest(np.float32(value)) if isinstance(value, float) else value
