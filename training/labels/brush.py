"""Label Studio's brush strokes: packed run lengths of an RGBA picture, whose alpha is the mask.

The format is that of the JavaScript package @thi.ng/rle-pack, a stream of bits:

    32 bits   number of values, 4 x height x width
    5 bits    size of a value - 1, here 8
    4 x 4     four sizes of run lengths - 1
    then runs, until all values are there:
    1 bit     1: one value, repeated; 0: as many values as the length says
    2 bits    which of the four sizes the length has
    n bits    length - 1
    8 bits    the value, or each of the values
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError

SIZES = (4, 8, 12, 16)  # bits of the lengths that are written
LEAST_ALPHA = 128  # of a pixel inside: half covered by the brush


def mask_from_brush(
    origin: object, packed: Sequence[int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Bytes of a stroke -> bool [height, width]. Raises LabelError."""
    height, width = size
    try:
        data = np.array(packed, np.uint8)
    except (OverflowError, ValueError, TypeError) as error:
        raise LabelError(f"{origin} has a brush stroke that is no list of bytes") from error
    bits = np.unpackbits(data)
    at = 0

    def number(length: int) -> int:
        nonlocal at
        part = bits[at : at + length]
        if len(part) < length:
            raise LabelError(f"{origin} has a brush stroke that ends early")
        at += length
        return int.from_bytes(np.packbits(part).tobytes(), "big") >> -length % 8

    total, word = number(32), number(5) + 1
    if total != 4 * height * width or word != 8:
        raise LabelError(
            f"{origin} has a brush stroke of {total} values of {word} bits; {width}x{height} "
            f"pixels have {4 * height * width} of 8"
        )
    sizes = [number(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = number(1)
        length = number(sizes[number(2)]) + 1
        if done + length > total:
            raise LabelError(f"{origin} has a brush stroke longer than its picture")
        if repeated:
            values[done : done + length] = number(8)
        else:
            part = bits[at : at + 8 * length]
            if len(part) < 8 * length:
                raise LabelError(f"{origin} has a brush stroke that ends early")
            values[done : done + length] = np.packbits(part)
            at += 8 * length
        done += length
    return values.reshape(height, width, 4)[..., 3] >= LEAST_ALPHA


def brush_from_mask(mask: NDArray[np.bool_]) -> list[int]:
    """bool [height, width] -> the bytes of a stroke: black, opaque inside.

    Runs of pixels would be runs of four alternating values, so all four channels are 255 inside.
    """
    values = np.repeat(mask.ravel(), 4).astype(np.uint8) * 255
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 255))
    lengths = np.diff(starts, append=len(values))
    fields = [_bits(len(values), 32), _bits(7, 5), *(_bits(size - 1, 4) for size in SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        while length:
            part = min(length, 1 << SIZES[-1])
            which = next(i for i, size in enumerate(SIZES) if part <= 1 << size)
            value = _bits(int(values[start]), 8)
            fields += ["1", _bits(which, 2), _bits(part - 1, SIZES[which]), value]
            length -= part
    text = "".join(fields)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _bits(value: int, length: int) -> str:
    return f"{value:0{length}b}"
