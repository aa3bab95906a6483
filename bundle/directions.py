"""Directions of a bundle: which way w+ moves for more of one class, and what that changes.

Enters: the file of a direction, little-endian float32 [end_row - first_row, w_dim] without a
header, and its facts in the manifest. Leaves: a `Direction`. Its values are the move of strength 1:
one standard deviation of the drawn rows of w+ along it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FileError
from bundle.manifest import DirectionFacts, GeneratorFacts, digest_of_facts

MAX_MOVE = 1e6  # of one value of w+ at strength 1; usual ones are under 10


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction as it was read."""

    name: str
    facts: DirectionFacts
    rows: NDArray[np.float32]  # [end_row - first_row, w_dim], the move of strength 1

    @cached_property
    def digest(self) -> str:
        """Of its facts, see digest_of_facts; made once, because every request compares it."""
        return digest_of_facts(self.facts)


def direction_bytes(w_dim: int, first_row: int, end_row: int) -> int:
    """Size of the file of a direction."""
    return 4 * w_dim * (end_row - first_row)


def bytes_from_rows(rows: NDArray[np.float32]) -> bytes:
    """Content of the file of a direction, from its rows."""
    return np.ascontiguousarray(rows, "<f4").tobytes()


def direction_from_bytes(
    data: bytes, file: Path, name: str, facts: DirectionFacts, generator: GeneratorFacts
) -> Direction:
    """Content of a direction's file, whose size the caller has checked. Raises FileError."""
    rows = np.frombuffer(data, "<f4").astype(np.float32, copy=False).reshape(-1, generator.w_dim)
    if not np.isfinite(rows).all():
        raise FileError(f"{file} holds values that are not finite; learn the direction again")
    largest = float(np.abs(rows).max())
    if not 0 < largest <= MAX_MOVE:
        raise FileError(
            f"{file} has a largest value of {largest:g}; a move of w has one over 0 and at most "
            f"{MAX_MOVE:g}: learn the direction again"
        )
    return Direction(name, facts, rows)
