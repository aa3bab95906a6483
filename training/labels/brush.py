"""Label Studio's brush strokes: packed run lengths of an RGBA picture, whose alpha is the mask.

`labelmint.datasets.run_lengths` has the format, and writes it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError

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
