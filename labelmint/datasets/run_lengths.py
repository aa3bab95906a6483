"""Masks as run lengths, as CVAT and Label Studio store them.

Label Studio's brush strokes are packed run lengths of an RGBA picture, whose alpha is the mask. The
format is that of the JavaScript package @thi.ng/rle-pack, a stream of bits:

    32 bits   number of values, 4 x height x width
    5 bits    size of a value - 1, here 8
    4 x 4     four sizes of run lengths - 1
    then runs, until all values are there:
    1 bit     1: one value, repeated; 0: as many values as the length says
    2 bits    which of the four sizes the length has
    n bits    length - 1
    8 bits    the value, or each of the values
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SIZES = (4, 8, 12, 16)  # bits of the lengths that are written


def brush_from_mask(mask: npt.NDArray[np.bool_]) -> list[int]:
    """bool [h, w] -> the bytes of a stroke: black, opaque inside.

    Runs of pixels would be runs of four alternating values, so all four channels are 255 inside.
    """
    values = np.repeat(mask.ravel(), 4).astype(np.uint8) * 255
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 255))
    lengths = np.diff(starts, append=len(values))
    fields = [_bits(len(values), 32), _bits(7, 5), *(_bits(size - 1, 4) for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        while length:
            part = min(length, 1 << _SIZES[-1])
            which = next(i for i, size in enumerate(_SIZES) if part <= 1 << size)
            value = _bits(int(values[start]), 8)
            fields += ["1", _bits(which, 2), _bits(part - 1, _SIZES[which]), value]
            length -= part
    text = "".join(fields)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def cvat_mask(mask: npt.NDArray[np.bool_]) -> dict[str, str]:
    """bool [h, w], not empty -> attributes of CVAT's element `mask`: its box, and the lengths of
    runs outside and inside in turns, row by row of the box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    flat = np.concatenate([[False], part.ravel()])  # the first run is outside
    changes = np.flatnonzero(np.diff(flat))
    runs = np.diff([0, *changes.tolist(), part.size])
    return {
        "rle": ", ".join(map(str, runs.tolist())),
        "left": str(columns[0]),
        "top": str(rows[0]),
        "width": str(part.shape[1]),
        "height": str(part.shape[0]),
    }


def _bits(value: int, length: int) -> str:
    return f"{value:0{length}b}"
