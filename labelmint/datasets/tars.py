"""Data sets as WebDataset shards, written and read: tar files of a fixed number of samples.

Enter: samples. Leave: tar files. The files of a sample share a key, its raw index: KEY.png (or
.jpg), KEY.mask.png, KEY.depth.npy, and KEY.json with index, uncertainty, viewpoint and keypoints.
Members have neither a time nor an owner, so that equal samples give equal tar files. An unfinished
tar file is in the scratch folder. `samples_of_tars` reads them.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
from labelmint.datasets.viewpoint import viewpoint_from_sample
from labelmint.model import Model

_MAX_FILES = 16  # of a sample; the writer's have at most four
_MAX_JSON_BYTES = 1 << 20  # of a sample; under 100 bytes for each keypoint


class TarWriter:
    """Writes WebDataset shards. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        assert request.samples_per_shard, "checked_request fills it in"
        self._folder, self._request, self._palette = folder, request, model.palette()
        self._number, self._samples = divmod(state.kept, request.samples_per_shard)
        length = state.mark.get("bytes", 0)
        self._tar = self._opened(length) if length else None

    def encoded(self, sample: Sample) -> bytes:
        """The tar members of a sample, as bytes."""
        fields: dict[str, object] = {"index": sample.index}
        if sample.uncertainty is not None:
            fields["uncertainty"] = sample.uncertainty
        fields |= viewpoint_from_sample(sample, self._request)
        if sample.keypoints is not None:
            fields["keypoints"] = json_from_keypoints(sample.keypoints)
        files = {image_suffix(self._request): encoded_image(sample.image, self._request)}
        if sample.mask is not None:
            files["mask.png"] = png_from_mask(sample.mask, self._palette)
        if sample.depth is not None:
            files["depth.npy"] = npy_from_array(sample.depth)
        files["json"] = json.dumps(fields).encode()
        return b"".join(
            _member(f"{sample.key}.{suffix}", content) for suffix, content in files.items()
        )

    def add(self, encoded: bytes) -> None:
        """Appends the next sample; raises OSError."""
        self._tar = self._tar or self._opened(0)
        self._tar.append(encoded)
        self._samples += 1
        if self._samples == self._request.samples_per_shard:
            self._seal(self._tar)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {"bytes": self._tar.length if self._tar else 0}

    def finish(self) -> None:
        """Completes the last tar file."""
        if self._tar:
            self._seal(self._tar)

    def close(self) -> None:
        """Closes the unfinished tar file."""
        if self._tar:
            self._tar.close()

    def _opened(self, length: int) -> AppendFile:
        name = tar_name(self._request, self._number)
        path = self._folder.scratch / name
        if length and not path.exists() and (self._folder.path / name).exists():
            os.replace(self._folder.path / name, path)  # completed after the last commit
        return AppendFile(path, length)

    def _seal(self, tar: AppendFile) -> None:
        end = 2 * tarfile.BLOCKSIZE
        tar.append(bytes(end + -(tar.length + end) % tarfile.RECORDSIZE))
        tar.close()
        os.replace(tar.path, self._folder.path / tar.path.name)
        self._tar, self._number, self._samples = None, self._number + 1, 0


def tar_name(request: Request, number: int) -> str:
    """File name of tar file `number`, counted from 0; it differs between shards of a request."""
    return f"samples-{request.shard_prefix}{number:06d}.tar"


def _member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)  # mode 0644; time, user and group 0
    header.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + padding


def samples_of_tars(path: Path, request: Request, samples: int) -> Iterator[StoredSample]:
    """The samples of a complete folder that has masks.

    Raises OSError, and for a damaged tar file ValueError, KeyError, TypeError, AttributeError.
    """
    assert request.samples_per_shard, "checked_request fills it in"
    for number in range(-(-samples // request.samples_per_shard)):
        file = path / tar_name(request, number)
        try:
            with opened_regular_file(file) as tar:
                yield from _samples_of_tar(tar, file, request)
        except tarfile.TarError as error:
            raise ValueError(f"{file.name}: {error}") from error


def _samples_of_tar(tar: BinaryIO, file: Path, request: Request) -> Iterator[StoredSample]:
    files: dict[str, StoredFile] = {}
    for member in _members(tar):
        key, _, suffix = member.name.partition(".")
        if suffix != "json":  # the last member of a sample
            files[suffix] = StoredFile(file, member.name, member.offset_data, member.size)
            if len(files) > _MAX_FILES:
                raise ValueError(f"{file.name}: {member.name} is one of over {_MAX_FILES} files")
            continue
        if member.size > _MAX_JSON_BYTES:
            raise ValueError(f"{file.name}: {member.name} has {member.size} bytes")
        tar.seek(member.offset_data)
        fields = json.loads(tar.read(member.size))
        if key != f"{fields['index']:012d}":
            raise ValueError(f"{file.name}: {member.name} has index {fields['index']}")
        yield StoredSample(fields, files[image_suffix(request)], files["mask.png"])
        files = {}


def _members(tar: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file of plain files, as the writer's are.

    tarfile's own reader also takes sparse files and long headers, for which a few bytes can ask for
    any amount of memory. Raises tarfile.TarError.
    """
    at, end = 0, tar.seek(0, os.SEEK_END)
    while True:
        tar.seek(at)
        header = tar.read(tarfile.BLOCKSIZE)
        if header == bytes(tarfile.BLOCKSIZE) or (at and not header):
            return
        member = tarfile.TarInfo.frombuf(header, "ascii", "replace")
        if member.type != tarfile.REGTYPE:
            raise tarfile.ReadError(f"{member.name} is not a plain file")
        member.offset_data = at + tarfile.BLOCKSIZE
        at = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
        if member.size < 0 or at > end:
            raise tarfile.ReadError("unexpected end of data")
        yield member
