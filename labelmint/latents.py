"""Random latents, classes and views of a stream, as functions of (seed, index).

Enter: a 64-bit seed, the purpose of the numbers, and raw sample indices. Leave: float32 or int32
rows, the same in client and service.

Words are Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3") with
key = (seed low, seed high) and counter = (block, purpose, index low, index high); block b
gives elements 4b to 4b + 3 of a row. Each pair of words (a, b) becomes two normals by
Box and Muller, in float64 and rounded once to float32, on uniforms in the open interval:

    u = (a + 0.5) / 2**32,  v = (b + 0.5) / 2**32
    sqrt(-2 ln u) * cos(2 pi v),  sqrt(-2 ln u) * sin(2 pi v)
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Float32s = npt.NDArray[np.float32]

MAX_MT19937_INDEX = 1_000_000  # exclusive; all rows before an index have to be drawn too
MAX_MT19937_SEED = 2**32  # exclusive

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_CHUNK = 1 << 16  # numbers per step, so that the arrays fit into the cache


class Purpose(IntEnum):
    """Use of a random row; rows of different purposes are independent."""

    OBJECT = 0
    VIEW = 1
    CLASS = 2
    NOISE = 3
    BALANCE = 4  # coins of a balanced stream
    PROPOSAL = 5  # whether a proposal generates an object


def latents(seed: int, purpose: int, indices: npt.ArrayLike, dim: int) -> Float32s:
    """Standard normal latents of these indices.

    Args:
        seed: 0 to 2**64 - 1.
        purpose: a `Purpose`.
        indices: [n] integers, 0 to 2**64 - 1, in any order.
        dim: length of a row, at least 1.

    Returns:
        float32 [n, dim]. A row depends on (seed, purpose, index) only; a row of a smaller dim is
        the beginning of it. Magnitudes are under 6.8.

    Raises:
        ValueError: an argument is out of its range.
    """
    rows = uint64_from_indices(indices)
    _check_range("dim", dim, 1, 2**31)
    out = np.empty((len(rows), dim), np.float32)
    step = max(1, _CHUNK // dim)
    for start in range(0, len(rows), step):
        words = random_words(seed, purpose, rows[start : start + step], -(-dim // 4))
        out[start : start + step] = normals_from_words(words)[:, :dim]
    return out


def classes(seed: int, indices: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int32]:
    """Uniformly random classes of these indices, for class-conditional generators.

    Returns:
        int32 [n], 0 to num_classes - 1: the first CLASS word times num_classes, over 2**32.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check_range("num_classes", num_classes, 1, 2**31)
    words = random_words(seed, Purpose.CLASS, uint64_from_indices(indices), 1)
    scaled: UInt64s = words[:, 0].astype(np.uint64) * np.uint64(num_classes)
    drawn: npt.NDArray[np.int32] = (scaled >> _HALF).astype(np.int32)
    return drawn


def views(seed: int, indices: npt.ArrayLike, codes: int) -> npt.NDArray[np.int32]:
    """Uniformly random codes of a view bank, for streams with view="random".

    Returns:
        int32 [n], 0 to codes - 1: the first VIEW word times codes, over 2**32.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check_range("codes", codes, 1, 2**31)
    words = random_words(seed, Purpose.VIEW, uint64_from_indices(indices), 1)
    scaled: UInt64s = words[:, 0].astype(np.uint64) * np.uint64(codes)
    drawn: npt.NDArray[np.int32] = (scaled >> _HALF).astype(np.int32)
    return drawn


def random_words(seed: int, purpose: int, indices: UInt64s, blocks: int) -> UInt32s:
    """Philox words of these indices: uint32 [n, 4 * blocks]."""
    _check_range("seed", seed, 0, 2**64)
    _check_range("purpose", purpose, 0, 2**32)
    rows = indices[:, None]
    counter = np.empty((4, len(indices), blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
    counter[1] = purpose
    counter[2] = rows & _LOW
    counter[3] = rows >> _HALF
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.moveaxis(words, 0, -1).reshape(len(indices), 4 * blocks)


def philox4x32(counter: npt.NDArray[Any], key: tuple[int, int]) -> UInt32s:
    """Ten rounds of Philox4x32: counter words [4, ...], each under 2**32, to uint32 [4, ...]."""
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    for turn in range(_ROUNDS):
        k0, k1 = (
            np.uint64((word + turn * weyl) & 0xFFFFFFFF)
            for word, weyl in zip(key, _WEYL, strict=True)
        )
        left, right = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c2 = (right >> _HALF) ^ c1 ^ k0, (left >> _HALF) ^ c3 ^ k1
        c1, c3 = right & _LOW, left & _LOW
    return np.stack((c0, c1, c2, c3)).astype(np.uint32)


def normals_from_words(words: UInt32s) -> Float32s:
    """Normals by the formula of Box and Muller above: uint32 [n, 2m] to float32 [n, 2m]."""
    uniforms = (words.astype(np.float64) + 0.5) * 2.0**-32  # exact
    radius = np.sqrt(-2.0 * np.log(uniforms[:, 0::2]))
    angle = (2.0 * np.pi) * uniforms[:, 1::2]
    normals = np.empty(words.shape, np.float32)
    normals[:, 0::2] = radius * np.cos(angle)
    normals[:, 1::2] = radius * np.sin(angle)
    return normals


class Mt19937Rows:
    """Rows of numpy.random.RandomState(seed).randn(..., z_dim), as the DatasetGAN code draws them.

    MT19937 cannot jump to a row: it has to draw all rows before it, each about 10 us at z_dim 512.
    An instance keeps its position, so that ascending indices draw each row once; a smaller index
    starts again from row 0. Not for use by several threads at once.
    """

    def __init__(self, seed: int, z_dim: int) -> None:
        """Raises ValueError for a seed outside 0 to 2**32 - 1 or a z_dim under 1."""
        _check_range("seed", seed, 0, MAX_MT19937_SEED, "use the philox latent source")
        _check_range("z_dim", z_dim, 1, 2**31)
        self._seed, self._z_dim = seed, z_dim
        self._next = 0  # index of the row that the state draws next
        self._state = np.random.RandomState(seed)

    def rows(self, indices: npt.ArrayLike) -> Float32s:
        """Rows of these indices, in any order: float32 [n, z_dim].

        Raises ValueError for an index outside 0 to 999,999. Memory is bounded, apart from the
        result.
        """
        wanted = uint64_from_indices(indices)
        if len(wanted):
            _check_range(
                "index", int(wanted.max()), 0, MAX_MT19937_INDEX, "use the philox latent source"
            )
        out = np.empty((len(wanted), self._z_dim), np.float32)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order].astype(np.int64)
        if len(ascending) and ascending[0] < self._next:
            self._state, self._next = np.random.RandomState(self._seed), 0
        step = max(1, _CHUNK // self._z_dim)
        done = 0
        while done < len(ascending):
            end = min(self._next + step, int(ascending[-1]) + 1)
            stop = int(np.searchsorted(ascending, end))
            drawn = self._state.randn(end - self._next, self._z_dim)
            out[order[done:stop]] = drawn[ascending[done:stop] - self._next]
            self._next, done = end, stop
        return out


def latents_mt19937(seed: int, indices: npt.ArrayLike, z_dim: int) -> Float32s:
    """Row i of RandomState(seed).randn(..., z_dim) in float32, [n, z_dim]; see `Mt19937Rows`."""
    return Mt19937Rows(seed, z_dim).rows(indices)


def uint64_from_indices(indices: npt.ArrayLike) -> UInt64s:
    """Indices as uint64 [n]; raises ValueError if they are not integers of that range."""
    # As objects, because numpy converts a list with integers on both sides of 2**63 to float64.
    given = indices if isinstance(indices, np.ndarray) else np.asarray(indices, object)
    integral = given.dtype.kind in "iu" or all(
        isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in given.flat
    )
    if given.ndim != 1 or not integral:
        raise ValueError(f"indices are {given.dtype} {list(given.shape)}; give integers [n]")
    if len(given):
        for extreme in (given.min(), given.max()):
            _check_range("index", int(extreme), 0, 2**64)
    return given.astype(np.uint64)


def _check_range(name: str, value: int, low: int, end: int, fix: str = "") -> None:
    if not low <= value < end:
        raise ValueError(
            f"{name} {value} is outside {low} to {end - 1}; {fix or 'choose one within'}"
        )
