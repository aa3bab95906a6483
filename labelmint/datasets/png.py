"""Data sets as plain folders, written and read: one file per picture, and a table.

Enter: samples. Leave: images/KEY.png (or .jpg), masks/KEY.png with a palette, depth/KEY.npy
(float16), index.csv with one row per sample, keypoints.jsonl with one JSON object per line, and
metadata.jsonl, by which `datasets.load_dataset` finds the pictures of a sample. `samples_of_table`
reads them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any

from labelmint.datasets.append_file import AppendFile
from labelmint.datasets.folder import DownloadState, Folder
from labelmint.datasets.request import Request
from labelmint.datasets.samples import (
    Sample,
    encoded_image,
    image_suffix,
    json_from_keypoints,
    npy_from_array,
    png_from_mask,
)
from labelmint.datasets.stored_files import StoredFile, StoredSample, opened_regular_file
from labelmint.datasets.viewpoint import (
    cells_from_viewpoint,
    viewpoint_columns,
    viewpoint_from_cells,
    viewpoint_from_sample,
)
from labelmint.model import Model

_TABLE, _POINTS, METADATA = "index.csv", "keypoints.jsonl", "metadata.jsonl"
_MAX_LINE_BYTES = 1 << 20  # a line has under 100 bytes for each keypoint


class PngWriter:
    """Writes plain folders. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        self._folder, self._request, self._palette = folder.path, request, model.palette()
        self._viewpoint = viewpoint_columns(model, request)
        self._columns = {"image": "images"}
        if "mask" in model.outputs:
            self._columns["mask"] = "masks"
        if "depth" in model.outputs:
            self._columns["depth"] = "depth"
        for name in self._columns.values():
            (self._folder / name).mkdir(exist_ok=True)
        self._lines = {
            name: AppendFile(self._folder / name, state.mark.get(name, 0))
            for name in (_TABLE, METADATA, *([_POINTS] if "keypoints" in model.outputs else []))
        }
        if not self._lines[_TABLE].length:
            head = ("index", "uncertainty", *self._viewpoint, *self._columns)
            self._lines[_TABLE].append(",".join(head).encode() + b"\n")

    def encoded(self, sample: Sample) -> tuple[dict[PurePosixPath, bytes], dict[str, bytes]]:
        """A sample's files by path, and its lines by the name of the file that they belong to."""
        folders, key = self._columns, sample.key
        files = {
            PurePosixPath(folders["image"], f"{key}.{image_suffix(self._request)}"): encoded_image(
                sample.image, self._request
            )
        }
        if sample.mask is not None:
            path = PurePosixPath(folders["mask"], f"{key}.png")
            files[path] = png_from_mask(sample.mask, self._palette)
        if sample.depth is not None:
            files[PurePosixPath(folders["depth"], f"{key}.npy")] = npy_from_array(sample.depth)
        score = "" if sample.uncertainty is None else str(sample.uncertainty)
        viewpoint = viewpoint_from_sample(sample, self._request)
        cells = cells_from_viewpoint(viewpoint, self._viewpoint)
        row = (str(sample.index), score, *cells, *map(str, files))
        paths = dict(zip(self._columns, map(str, files), strict=True))
        lines = {
            _TABLE: ",".join(row).encode() + b"\n",
            METADATA: metadata_line(sample, viewpoint, paths),
        }
        if sample.keypoints is not None:
            points = {"index": sample.index, "keypoints": json_from_keypoints(sample.keypoints)}
            lines[_POINTS] = json.dumps(points).encode() + b"\n"
        return files, lines

    def add(self, encoded: tuple[dict[PurePosixPath, bytes], dict[str, bytes]]) -> None:
        """Writes the next sample; raises OSError."""
        files, lines = encoded
        for path, content in files.items():
            (self._folder / path).write_bytes(content)
        for name, line in lines.items():
            self._lines[name].append(line)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {name: file.length for name, file in self._lines.items()}

    def finish(self) -> None:
        """Does nothing: all files are complete after each sample."""

    def close(self) -> None:
        """Closes the files."""
        for file in self._lines.values():
            file.close()


def metadata_line(sample: Sample, viewpoint: dict[str, Any], paths: dict[str, str]) -> bytes:
    """The line of a sample in metadata.jsonl, by which `datasets` finds its pictures.

    `file_name` is the column `image` there, and `mask_file_name` the column `mask`. The key is
    the raw index as text, because `datasets` has no numbers of 64 bits without a sign.

    Args:
        sample: the sample.
        viewpoint: its fields of `viewpoint_from_sample`.
        paths: file in the folder by output: image, mask, depth.
    """
    fields: dict[str, Any] = {"file_name": paths["image"], "key": sample.key}
    if "mask" in paths:
        fields["mask_file_name"] = paths["mask"]
    if "depth" in paths:
        fields["depth"] = paths["depth"]
    if sample.uncertainty is not None:
        fields["uncertainty"] = sample.uncertainty
    fields |= viewpoint
    if sample.keypoints is not None:
        fields["keypoints"] = json_from_keypoints(sample.keypoints)
    return json.dumps(fields).encode() + b"\n"


def samples_of_table(path: Path, request: Request, keypoints: bool) -> Iterator[StoredSample]:
    """The samples of a complete folder that has masks and several views per object.

    Raises OSError, and for a damaged table ValueError, KeyError, TypeError, AttributeError.
    """
    with closing(_lines(path / _TABLE)) as table:
        lines = _lines(path / _POINTS) if keypoints else repeat("{}")
        rows = csv.reader(table, strict=True)
        try:
            head = next(rows, [])
            for cells in rows:
                row = dict(zip(head, cells, strict=True))
                fields = {"index": int(row["index"]), **viewpoint_from_cells(row)}
                points = json.loads(next(lines, ""))
                if points.setdefault("index", fields["index"]) != fields["index"]:
                    raise ValueError(
                        f"{_POINTS} has sample {points['index']} where {_TABLE} has "
                        f"{fields['index']}"
                    )
                key = f"{fields['index']:012d}"
                yield StoredSample(
                    {**points, **fields},
                    StoredFile(path / "images" / f"{key}.{image_suffix(request)}"),
                    StoredFile(path / "masks" / f"{key}.png"),
                )
        except csv.Error as error:
            raise ValueError(f"{_TABLE}: {error}") from error


def _lines(path: Path) -> Generator[str, None, None]:
    with opened_regular_file(path) as file:
        while line := file.readline(_MAX_LINE_BYTES + 1):
            if len(line) > _MAX_LINE_BYTES:
                raise ValueError(f"{path.name} has a line of over {_MAX_LINE_BYTES} bytes")
            yield line.decode()
