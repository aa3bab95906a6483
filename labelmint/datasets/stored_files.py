"""Pictures of stored samples: files or members of tar files, decoded to arrays.

Enter: a `StoredFile` and the size on its data card. Leaves: a uint8 array. A file that no writer of
this package can have written is an error that names it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from labelmint.errors import LabelmintError

_FORMATS = ("PNG", "JPEG")
REDOWNLOAD_HINT = "if another program changed it, download it again to another folder"

MAX_CARD_BYTES = 16 << 20  # of card.json, and of state.json; they have kilobytes
_MAX_PICTURE_BYTES = 1 << 30  # beyond any picture that Pillow decodes


@contextmanager
def opened_regular_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading; raises OSError for a FIFO, on which a read may wait for
    ever, or a device, which may never end."""
    _refuse_irregular(path, os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        _refuse_irregular(path, os.fstat(descriptor))
        yield stream


def read_card(path: Path) -> bytes:
    """The bytes of card.json or state.json. Raises OSError, ValueError."""
    with opened_regular_file(path) as stream:
        data = stream.read(MAX_CARD_BYTES + 1)
    if len(data) > MAX_CARD_BYTES:
        raise ValueError(f"it has over {MAX_CARD_BYTES} bytes")
    return data


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


@dataclass(frozen=True)
class StoredFile:
    """A file, or a member of a tar file."""

    path: Path
    member: str = ""  # name in the tar file; empty: a file of its own
    offset: int = 0  # first byte of the member
    size: int = -1  # number of bytes; -1: up to the end

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    def content(self, max_bytes: int) -> bytes:
        """The bytes of the file or member; raises OSError, ValueError for more than max_bytes."""
        with opened_regular_file(self.path) as opened:
            size = self.size
            if size < 0:
                size = os.fstat(opened.fileno()).st_size - self.offset
            if size > max_bytes:
                raise ValueError(f"it has {size} bytes, over {max_bytes}")
            opened.seek(self.offset)
            return opened.read(size)


@dataclass(frozen=True)
class StoredSample:
    """A sample of a data set on disk; nothing is checked yet."""

    fields: dict[str, Any]  # as in KEY.json of a tar file
    image: StoredFile
    mask: StoredFile


def image_from_file(file: StoredFile, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """RGB image, uint8 [H, W, 3], of size (H, W). Raises LabelmintError."""
    return _pixels(file, ("RGB",), size)


def mask_from_file(file: StoredFile, size: tuple[int, int], classes: int) -> npt.NDArray[np.uint8]:
    """Class ids, uint8 [H, W], of size (H, W), all under classes. Raises LabelmintError."""
    ids = _pixels(file, ("P", "L"), size)
    if ids.max() >= classes:
        raise LabelmintError(
            f"{file} has class {ids.max()}, but its card lists {classes} classes; {REDOWNLOAD_HINT}"
        )
    return ids


def _pixels(
    file: StoredFile, modes: tuple[str, ...], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    try:
        # No PNG of a writer has more bytes than its pixels in RGBA, and a little.
        content = file.content(min(4 * size[0] * size[1] + (1 << 20), _MAX_PICTURE_BYTES))
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            picture.verify()  # checksums of a PNG, which decoding ignores
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if (picture.height, picture.width) != size:
                raise LabelmintError(
                    f"{file} is {picture.width}x{picture.height} pixels, but its card says "
                    f"{size[1]}x{size[0]}; {REDOWNLOAD_HINT}"
                )
            if picture.mode not in modes:
                raise LabelmintError(
                    f"{file} has mode {picture.mode}, not {' or '.join(modes)}; {REDOWNLOAD_HINT}"
                )
            return np.array(picture)
    except UnidentifiedImageError as error:
        raise LabelmintError(f"{file} is no PNG or JPEG; {REDOWNLOAD_HINT}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LabelmintError(f"{file} cannot be read ({reason}); {REDOWNLOAD_HINT}") from error
