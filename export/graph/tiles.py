"""Geometry of resizing by tiles: which samples a tile of output pixels reads, and how.

Bilinear resizing is linear and separable, so a tile of t x t output pixels is one constant matrix
times the few samples around it. For levels whose pixels span up to t output pixels the samples are
the level's own. Coarser levels are piecewise linear with kinks only at multiples of t, so their sum
is known exactly from its values at the tiles' corners ("nodes"), where they are added first. The
matrix is then the same for every tile. Nearest resizing reads fewer samples: of the coarser levels
a tile reads a single one, and the nodes are the tiles. All functions are NumPy in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nets.features import Resize

Matrix = NDArray[np.float64]


def interpolation(positions: Matrix, extent: int) -> Matrix:
    """Weights [len(positions), extent] of linear interpolation with replicated edges.

    Positions are in samples, sample i at i (half-pixel centres already removed).
    """
    clamped: Matrix = np.clip(positions, 0, extent - 1)
    lower = np.minimum(np.floor(clamped), extent - 1).astype(int)
    upper = np.minimum(lower + 1, extent - 1)
    weights = np.zeros((len(positions), extent))
    rows = np.arange(len(positions))
    np.add.at(weights, (rows, lower), 1 - (clamped - lower))
    np.add.at(weights, (rows, upper), clamped - lower)
    return weights


def selection(positions: Matrix, extent: int) -> Matrix:
    """Weights [len(positions), extent] of the sample that each position lies in."""
    weights: Matrix = np.eye(extent)[np.floor(positions).astype(int)]
    return weights


def node_weights(extent: int, grid: int, tile: int, resize: Resize = "bilinear") -> Matrix:
    """[nodes, extent]: a level's values at the tiles' borders, grid / tile + 1 of them; nearest:
    in the tiles, grid / tile."""
    if resize == "nearest":
        return selection(np.arange(0, grid, tile, dtype=np.float64) * (extent / grid), extent)
    edges = np.arange(0, grid + 1, tile, dtype=np.float64)
    return interpolation(edges * (extent / grid) - 0.5, extent)


@dataclass(frozen=True)
class TileReads:
    """How one tile reads the table of level samples and nodes."""

    direct: tuple[int, ...]  # extents of the levels read as they are, ascending
    merged: tuple[int, ...]  # extents of the levels summed at the nodes, ascending
    nodes: int  # along an axis
    weights: Matrix  # [pixels of a tile, K], the same for every tile
    indices: NDArray[np.int64]  # [tiles down, tiles across, K], rows of the table
    # The table: direct levels in row-major order, then the nodes, squared.


def tile_reads(
    extents: tuple[int, ...],
    grid: int,
    tile: int,
    resize: Resize = "bilinear",
    *,
    squares: tuple[int, int] = (1, 1),
) -> TileReads:
    """For levels of these extents, all powers of two under `grid`; a tile is so many squares of
    `tile` pixels high and wide."""
    direct = tuple(r for r in extents if grid // r <= tile)
    merged = tuple(r for r in extents if grid // r > tile)
    nodes = grid // tile + (1 if resize == "bilinear" else 0)
    offset = 0
    weights: list[Matrix] = []
    indices: list[NDArray[np.int64]] = []
    for extent in direct:
        (down, rows), (across, columns) = (
            _level_axis(extent, grid, tile * count, resize) for count in squares
        )
        weights.append(np.kron(down, across).astype(np.float64))
        indices.append(_pairs(rows, columns, extent) + offset)
        offset += extent * extent
    if merged:
        (down, rows), (across, columns) = (
            _node_axis(grid // tile, tile, count, resize) for count in squares
        )
        weights.append(np.kron(down, across).astype(np.float64))
        indices.append(_pairs(rows, columns, nodes) + offset)
    return TileReads(
        direct, merged, nodes, np.concatenate(weights, axis=1), np.concatenate(indices, axis=2)
    )


def _level_axis(
    extent: int, grid: int, side: int, resize: Resize
) -> tuple[Matrix, NDArray[np.int64]]:
    """Along one axis, for tiles of `side` pixels: weights [side, k] and a level's samples that
    each tile reads [tiles, k]."""
    span = side * extent // grid  # samples under a tile
    positions: Matrix = (np.arange(side, dtype=np.float64) + 0.5) * (extent / grid)
    if resize == "nearest":
        weights, beside = selection(positions, span), 0
    else:
        weights, beside = interpolation(positions - 0.5 + 1, span + 2), 1
    reads = np.arange(grid // side)[:, None] * span + np.arange(-beside, span + beside)
    return weights, np.clip(reads, 0, extent - 1)


def _node_axis(
    squares: int, tile: int, count: int, resize: Resize
) -> tuple[Matrix, NDArray[np.int64]]:
    """The same of the nodes, for tiles of `count` squares."""
    positions: Matrix = (np.arange(tile * count, dtype=np.float64) + 0.5) / tile
    if resize == "nearest":
        weights, beside = selection(positions, count), 0
    else:
        weights, beside = interpolation(positions, count + 1), 1
    first = np.arange(0, squares, count)
    return weights, first[:, None] + np.arange(count + beside)


def tile_pixels(grid: int, tile: int) -> NDArray[np.int64]:
    """[grid / tile, grid / tile, tile * tile]: the grid's row-major pixels, tile by tile."""
    across = grid // tile
    pixels = np.arange(grid * grid).reshape(across, tile, across, tile)
    return pixels.transpose(0, 2, 1, 3).reshape(across, across, tile * tile)


def _pairs(rows: NDArray[np.int64], columns: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    """Reads along both axes [tiles, k] -> row-major [tiles down, tiles across, k * k]."""
    both = rows[:, None, :, None] * extent + columns[None, :, None, :]
    return both.reshape(len(rows), len(columns), -1)
