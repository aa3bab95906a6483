"""COCO's run lengths: alternating runs of outside and inside, down the columns."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError


def counts_from_text(text: str) -> list[int]:
    """Compressed run lengths: five bits a character, from the third on differences.

    Read here and not by pycocotools, whose C code trusts the text.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def mask_from_counts(path: Path, counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Runs of a mask of (width, height) -> bool [height, width]. Raises LabelError."""
    width, height = size
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise LabelError(f"{path} has run lengths that do not add up to {width}x{height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
