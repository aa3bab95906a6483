"""Pictures of stored samples: files or members of tar files, decoded to arrays.

Enter: a `StoredFile` and the size on its data card. Leaves: a uint8 array. A file that no writer of
this package can have written is an error that names it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from labelmint.errors import LabelmintError

_FORMATS = ("PNG", "JPEG")
REDOWNLOAD_HINT = "if another program changed it, download it again to another folder"


@dataclass(frozen=True)
class StoredFile:
    """A file, or a member of a tar file."""

    path: Path
    member: str = ""  # name in the tar file; empty: a file of its own
    offset: int = 0  # first byte of the member
    size: int = -1  # number of bytes; -1: up to the end

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    def content(self) -> bytes:
        """The bytes of the file or member; raises OSError."""
        with self.path.open("rb") as opened:
            opened.seek(self.offset)
            return opened.read(self.size)


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
        content = file.content()
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
