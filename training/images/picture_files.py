"""Pictures and arrays of somebody else: a path -> an open picture, or a line that says why not.

Pillow knows formats whose decoding runs another program (EPS runs Ghostscript) or a library that
few have tried. So only those are read that cameras, browsers and label tools write, whatever a
file's name ends with.
"""

import struct
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from labelmint.datasets.stored_files import opened_regular_file
from labelmint.errors import printable_from_text
from training.errors import LabelError

FORMATS = (
    "AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP",
)  # fmt: skip
# What decoders raise for damaged files, of which Pillow documents the first.
_DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError,
    RuntimeError, MemoryError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


@contextmanager
def opened_picture(source: Path | BinaryIO, origin: str = "") -> Iterator[Image.Image]:
    """A picture, open but not decoded; the block may decode it.

    Args:
        source: a regular file, or one that is open for reading.
        origin: what an error is about. Empty: the path.

    Raises:
        LabelError: it is no picture of FORMATS, or the block cannot decode it.
    """
    origin = origin or str(source)
    try:
        if isinstance(source, Path):
            with opened_regular_file(source) as stream, _opened(stream) as image:
                yield image
        else:
            with _opened(source) as image:
                yield image
    except UnidentifiedImageError as error:
        raise LabelError(
            f"{origin} cannot be read as an image: it is none of {', '.join(FORMATS)}"
        ) from error
    except _DECODE_ERRORS as error:
        raise LabelError(f"{origin} cannot be read as an image: {_reason(error)}") from error


def array_from_npy(path: Path) -> NDArray[np.generic]:
    """The array of an .npy file without pickled objects, in memory of the file's size at most.

    Raises LabelError.
    """
    try:
        with opened_regular_file(path):  # np.load waits for ever on a FIFO
            pass
        # Mapped, a header that claims terabytes is compared with the size of the file.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of arrays; save one with np.save")
        return np.array(array)
    except (*_DECODE_ERRORS, tokenize.TokenError) as error:
        raise LabelError(f"{path} cannot be read as a numpy array: {_reason(error)}") from error


@contextmanager
def _opened(stream: BinaryIO) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags, and of large pictures below the limit
        Image.init()
        known = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(stream, formats=known) as image:
            yield image


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable_from_text(" ".join(text.split()), 200) or type(error).__name__
