"""What a format's reader finds of a sample, and the arrays of its pictures.

Enter: pieces, files or members of tars. Leave: arrays. What no writer of this room left there is an
error that names it.
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
AGAIN = "if it was changed, download it again to another folder"


@dataclass(frozen=True)
class Piece:
    """A file, or a member of a tar."""

    path: Path
    member: str = ""
    offset: int = 0
    size: int = -1  # all of it

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    def content(self) -> bytes:
        """Its bytes; raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Found:
    """A sample as it is stored."""

    fields: dict[str, Any]  # as KEY.json of a tar has them; nothing is checked yet
    image: Piece
    mask: Piece


def image_from_piece(piece: Piece, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3] of these extents, RGB. Raises LabelmintError."""
    return _pixels(piece, ("RGB",), size)


def mask_from_piece(piece: Piece, size: tuple[int, int], classes: int) -> npt.NDArray[np.uint8]:
    """uint8 [h, w] of these extents, ids under `classes`. Raises LabelmintError."""
    ids = _pixels(piece, ("P", "L"), size)
    if ids.max() >= classes:
        raise LabelmintError(f"{piece} has class {ids.max()}, there are {classes}; {AGAIN}")
    return ids


def _pixels(piece: Piece, modes: tuple[str, ...], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    try:
        content = piece.content()
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            picture.verify()  # the checksums of a PNG, which decoding leaves out
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if (picture.height, picture.width) != size:
                raise LabelmintError(
                    f"{piece} is {picture.width}x{picture.height} pixels, its card says "
                    f"{size[1]}x{size[0]}; {AGAIN}"
                )
            if picture.mode not in modes:
                raise LabelmintError(
                    f"{piece} has mode {picture.mode}, not {' or '.join(modes)}; {AGAIN}"
                )
            return np.array(picture)
    except UnidentifiedImageError as error:
        raise LabelmintError(f"{piece} is no PNG or JPEG; {AGAIN}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LabelmintError(f"{piece} cannot be read ({reason}); {AGAIN}") from error
