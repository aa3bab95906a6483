"""How the kernels cut a picture: tiles of pixels, bands of tiles, and the table rows of a band."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.graph.spec import LabelSpec
from export.graph.tiles import TileReads, tile_reads

SQUARE = 8  # pixels between nodes
LEAST_GRID = 64  # so that the level of 4 pixels, with the bias, lies among the nodes


def slabs(count: int, least: int = 16) -> tuple[int, int]:
    """Two powers of two (the second may be 0), the fewest in sum that hold `count`, each as
    tensor cores take them."""
    whole = max(least, 1 << (count - 1).bit_length())
    if whole // 2 < least or count <= least:
        return whole, 0
    half = whole // 2
    rest = max(least, 1 << (count - half - 1).bit_length())
    return (half, rest) if half + rest < whole else (whole, 0)


@dataclass(frozen=True)
class LevelRows:
    """Rows of one level that a band reads; samples in row-major order."""

    extent: int
    first: int  # sample
    count: int
    place: int  # row of the band's table


@dataclass(frozen=True)
class Band:
    """Some rows of tiles, labelled in one launch."""

    first_tile: int
    levels: tuple[LevelRows, ...]
    table_rows: int
    reads: NDArray[np.int32]  # [tiles, K padded]: rows of the table, behind them the nodes


@dataclass(frozen=True)
class KernelTiles:
    """The geometry of one bundle's kernels."""

    tile: tuple[int, int]  # pixels down and across
    direct: tuple[int, ...]  # extents that the table holds, ascending
    merged: tuple[int, ...]  # extents summed at the nodes
    nodes: int  # along an axis
    interpolation: NDArray[np.float16]  # [pixels of a tile, K padded]
    reads: tuple[int, int]  # K padded, as slabs
    bands: tuple[Band, ...]

    @property
    def table_rows(self) -> int:
        """Of the largest band."""
        return max(band.table_rows for band in self.bands)


def kernel_tiles(
    extents: tuple[int, ...], spec: LabelSpec, squares: tuple[int, int], band_tiles: int
) -> KernelTiles:
    """For levels of these extents under the grid, in bands of at most so many tiles (but whole
    rows of tiles). Raises ValueError when the grid is too small."""
    tile = (SQUARE * squares[0], SQUARE * squares[1])
    least = max(LEAST_GRID, *tile)
    if spec.grid < least:
        raise ValueError(f"the label grid is {spec.grid}; these tiles need at least {least}")
    reads = tile_reads(extents, spec.grid, SQUARE, spec.resize, squares=squares)
    padded = slabs(reads.weights.shape[1])
    missing = sum(padded) - reads.weights.shape[1]
    first = spec.crop_top // tile[0]
    end = -(-(spec.crop_top + spec.height) // tile[0])
    step = max(1, band_tiles * tile[1] // spec.grid)
    return KernelTiles(
        tile,
        reads.direct,
        reads.merged,
        reads.nodes,
        np.pad(reads.weights, ((0, 0), (0, missing))).astype(np.float16),
        padded,
        tuple(_band(reads, row, min(row + step, end), missing) for row in range(first, end, step)),
    )


def _band(reads: TileReads, first: int, end: int, missing: int) -> Band:
    """Rows `first` to `end` of tiles. What is missing to whole slabs reads row 0 with weight 0."""
    indices = reads.indices[first:end]
    local = np.full_like(indices, -1)
    levels = []
    place = 0
    for extent, offset in _offsets(reads):
        own = (indices >= offset) & (indices < offset + extent * extent)
        samples = indices[own] - offset
        low = int(samples.min()) // extent * extent
        high = (int(samples.max()) // extent + 1) * extent
        local[own] = samples - low + place
        levels.append(LevelRows(extent, low, high - low, place))
        place += high - low
    total = sum(extent * extent for extent in reads.direct)
    nodes = indices >= total
    local[nodes] = indices[nodes] - total + place
    flat = np.pad(local.reshape(-1, local.shape[2]), ((0, 0), (0, missing)))
    return Band(first * indices.shape[1], tuple(levels), place, flat.astype(np.int32))


def _offsets(reads: TileReads) -> Iterator[tuple[int, int]]:
    offset = 0
    for extent in reads.direct:
        yield extent, offset
        offset += extent * extent
