"""How the fused kernels divide the label grid: pixels into tiles, rows of tiles into bands.

Label extents and the crop enter; the rows of features that each band needs, and the table rows
that each of its tiles reads, leave. export.graph.tiles has the geometry of a single tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.graph.spec import LabelSpec
from export.graph.tiles import TileReads, tile_reads

SQUARE = 8  # pixels between nodes
MIN_GRID = 64  # from here on the level of 4 pixels, which has the bias, is one of the merged levels


@dataclass(frozen=True)
class LevelRows:
    """The samples of one level that a band reads, which are whole rows of the level.

    Example: rows 1 to 4 of level 8 are samples 8 to 39: first_sample 8, count 32.
    """

    extent: int
    first_sample: int  # row-major number in the level
    count: int
    table_row: int  # row of the band's table for the first sample


@dataclass(frozen=True)
class Band:
    """Some rows of tiles, which one launch labels."""

    first_tile: int  # row-major number in the grid
    levels: tuple[LevelRows, ...]
    table_rows: int  # rows of the band's table
    reads: NDArray[np.int32]  # [tiles, K padded]: rows of the table, then table_rows + node


@dataclass(frozen=True)
class KernelTiles:
    """The tiles and bands of one bundle's label grid."""

    tile: tuple[int, int]  # height and width of a tile, pixels
    direct: tuple[int, ...]  # extents of the levels in the table, ascending
    merged: tuple[int, ...]  # extents of the levels summed at the nodes, ascending
    nodes: int  # per axis
    interpolation: NDArray[np.float16]  # [pixels of a tile, K padded]
    read_slabs: tuple[int, int]  # K padded, as two powers of two
    bands: tuple[Band, ...]

    @property
    def table_rows(self) -> int:
        """Rows of the largest band's table."""
        return max(band.table_rows for band in self.bands)


def kernel_tiles(
    extents: tuple[int, ...], spec: LabelSpec, squares: tuple[int, int], band_tiles: int
) -> KernelTiles:
    """Tiles and bands for levels of these extents under the grid.

    squares: height and width of a tile, in units of 8 pixels. band_tiles: largest number of tiles
    in a band; a band has at least one whole row of tiles. Raises ValueError if the grid is too
    small.

    Example: grid 64, rows 9 to 58, squares (1, 2), band_tiles 8. Tiles are 8 x 16 pixels, 4 in a
    row. The crop needs rows 1 to 7 of tiles; bands have 2 rows: 1-2, 3-4, 5-6 and 7.
    """
    tile = (SQUARE * squares[0], SQUARE * squares[1])
    min_grid = max(MIN_GRID, *tile)
    if spec.grid < min_grid:
        raise ValueError(f"the label grid is {spec.grid}; these tiles need at least {min_grid}")
    reads = tile_reads(extents, spec.grid, SQUARE, spec.resize, squares=squares)
    padded = slabs(reads.weights.shape[1])
    padding = sum(padded) - reads.weights.shape[1]
    first = spec.crop_top // tile[0]
    end = -(-(spec.crop_top + spec.height) // tile[0])
    step = max(1, band_tiles * tile[1] // spec.grid)
    return KernelTiles(
        tile,
        reads.direct,
        reads.merged,
        reads.nodes[0],
        np.pad(reads.weights, ((0, 0), (0, padding))).astype(np.float16),
        padded,
        tuple(_band(reads, row, min(row + step, end), padding) for row in range(first, end, step)),
    )


def slabs(count: int, minimum: int = 16) -> tuple[int, int]:
    """Two powers of two with the smallest sum that is at least `count`; the second may be 0.

    Tensor cores take sizes that are powers of two of at least `minimum`. Two of them need less
    padding than one. Examples: 65 -> (64, 16), 100 -> (128, 0), 10 -> (16, 0).
    """
    whole = max(minimum, 1 << (count - 1).bit_length())
    if whole // 2 < minimum or count <= minimum:
        return whole, 0
    half = whole // 2
    rest = max(minimum, 1 << (count - half - 1).bit_length())
    return (half, rest) if half + rest < whole else (whole, 0)


def _band(reads: TileReads, first: int, end: int, padding: int) -> Band:
    """The band of rows `first` to `end - 1` of tiles.

    `reads` has row numbers of the whole table, with all samples of all direct levels. A band's
    table has only the rows of samples that its tiles read, so numbers change. `padding` reads per
    tile are added; they read row 0 with weight 0.

    Example: grid 64, levels 4, 8, 16, 32, tiles of 8 x 8, rows 2 and 3 of tiles.

        level   rows of samples   whole table     first_sample, count   band's table
        8       1 to 4            8 to 39         8, 32                 0 to 31
        16      3 to 8            112 to 207      48, 96                32 to 127
        32      7 to 16           544 to 863      224, 320              128 to 447
        nodes   all 9 x 9         1344 to 1424                          448 to 528 (not stored)
    """
    whole_table = reads.indices[first:end]
    band_table = np.full_like(whole_table, -1)
    levels = []
    table_row = 0
    for extent, level_start in _level_starts(reads):
        of_level = (whole_table >= level_start) & (whole_table < level_start + extent * extent)
        samples = whole_table[of_level] - level_start
        low = int(samples.min()) // extent * extent  # rounded down to a whole row
        high = (int(samples.max()) // extent + 1) * extent
        band_table[of_level] = samples - low + table_row
        levels.append(LevelRows(extent, low, high - low, table_row))
        table_row += high - low
    nodes_start = sum(extent * extent for extent in reads.direct)
    of_nodes = whole_table >= nodes_start
    band_table[of_nodes] = whole_table[of_nodes] - nodes_start + table_row
    by_tile = np.pad(band_table.reshape(-1, band_table.shape[2]), ((0, 0), (0, padding)))
    first_tile = first * whole_table.shape[1]
    return Band(first_tile, tuple(levels), table_row, by_tile.astype(np.int32))


def _level_starts(reads: TileReads) -> Iterator[tuple[int, int]]:
    """Extent and first row in the whole table, for each direct level."""
    start = 0
    for extent in reads.direct:
        yield extent, start
        start += extent * extent
