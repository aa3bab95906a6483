"""Geometry of resizing by tiles: which samples a tile of output pixels reads, and their weights.

Bilinear resizing is linear and separable. A tile of t x t output pixels is therefore one constant
matrix times the few samples around it, and the matrix is the same for every tile.

- "direct" levels have at least one sample per t pixels. A tile reads their samples.
- "merged" levels are coarser. Each is linear between multiples of t pixels, so their sum is
  known exactly from its values at the corners of the tiles, called nodes. The levels are added
  at the nodes, and a tile reads the 4 nodes at its corners.

One axis of a grid of 64 pixels with tiles of t = 8. Level 16 is direct, level 4 is merged:

    pixels        0       8       16      24 ...
    tiles         |   0   |   1   |   2   |
    level 16        0   1   2   3   4   5        one sample per 4 pixels
    tile 1 reads        1   2   3   4            2 in the tile, 1 on either side
    level 4               0               1      one sample per 16 pixels
    nodes         0       1       2       3      64 / 8 + 1 = 9 of them
    tile 1 reads          1       2

With nearest resizing a tile reads no neighbors, and there is one node per tile instead of per
corner. All functions compute in NumPy in float64.

Where images are not square, the counts of samples, tiles and nodes differ between the axes; pixels
per sample do not.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nets.config import SQUARE, size_at
from nets.features import Resize

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TileReads:
    """How the tiles of a grid are computed from a table of level samples and nodes.

    The rows of the table are the samples of each direct level, row-major, then the nodes,
    row-major. For a table [rows, C], the pixels of all tiles are weights @ table[indices],
    [tiles down, tiles across, pixels of a tile, C].
    """

    direct: tuple[int, ...]  # nominal extents of the direct levels, ascending
    merged: tuple[int, ...]  # nominal extents of the merged levels, ascending
    nodes: tuple[int, int]  # down and across
    weights: Matrix  # [pixels of a tile, K], the same for every tile
    indices: Indices  # [tiles down, tiles across, K], rows of the table


def tile_reads(
    extents: tuple[int, ...],
    grid: int,
    tile: int,
    resize: Resize = "bilinear",
    *,
    squares: tuple[int, int] = (1, 1),
    start: tuple[int, int] = SQUARE,
) -> TileReads:
    """Weights and table rows for levels of these nominal extents, resized to that of `grid`.

    extents: ascending powers of two under `grid`. tile: distance between nodes in pixels, which
    divides both sides of the grid. squares: height and width of a tile, in units of `tile` pixels.
    start: rows and columns of a level of extent 4.

    Example: extents (4, 8, 16, 32), grid 64, tile 8, bilinear.

        level   samples per tile   a tile reads   rows of the table
        8       1 x 1              3 x 3 = 9      0 to 63
        16      2 x 2              4 x 4 = 16     64 to 319
        32      4 x 4              6 x 6 = 36     320 to 1343
        4       merged: 9 x 9 nodes     2 x 2 = 4      1344 to 1424

    K is 9 + 16 + 36 + 4 = 65: weights are [64, 65], indices are [8, 8, 65].
    """
    direct = tuple(r for r in extents if grid // r <= tile)
    merged = tuple(r for r in extents if grid // r > tile)
    pixels = size_at(grid, start)
    edge = 1 if resize == "bilinear" else 0
    nodes = (pixels[0] // tile + edge, pixels[1] // tile + edge)
    first_row = 0
    weights: list[Matrix] = []
    indices: list[Indices] = []
    for extent in direct:
        rows, columns = size_at(extent, start)
        down = _level_axis(rows, pixels[0], tile * squares[0], resize)
        across = _level_axis(columns, pixels[1], tile * squares[1], resize)
        weights.append(_kron(down, across))
        indices.append(_row_major(down, across, columns) + first_row)
        first_row += rows * columns
    if merged:
        down = _node_axis(pixels[0] // tile, tile, squares[0], resize)
        across = _node_axis(pixels[1] // tile, tile, squares[1], resize)
        weights.append(_kron(down, across))
        indices.append(_row_major(down, across, nodes[1]) + first_row)
    return TileReads(
        direct, merged, nodes, np.concatenate(weights, axis=1), np.concatenate(indices, axis=2)
    )


def padded_reads(reads: TileReads, multiple: int) -> TileReads:
    """The same tiles with K rounded up to a multiple: the last row is read again, with weight 0."""
    extra = -reads.weights.shape[1] % multiple
    weights = np.pad(reads.weights, ((0, 0), (0, extra)))
    indices = np.pad(reads.indices, ((0, 0), (0, 0), (0, extra)), mode="edge")
    return replace(reads, weights=weights, indices=indices)


def node_weights(extent: int, grid: int, tile: int, resize: Resize = "bilinear") -> Matrix:
    """Weights [nodes, extent] that give a level's values at the nodes, along one axis with `extent`
    samples and `grid` pixels.

    Bilinear: grid / tile + 1 nodes, at the borders of the tiles. Nearest: grid / tile nodes, one
    in each tile.
    """
    if resize == "nearest":
        return selection(np.arange(0, grid, tile, dtype=np.float64) * (extent / grid), extent)
    edges = np.arange(0, grid + 1, tile, dtype=np.float64)
    return interpolation(edges * (extent / grid) - 0.5, extent)


def tile_pixels(size: tuple[int, int], tile: int) -> Indices:
    """Numbers of the pixels (row-major) of a grid of (height, width), tile by tile: [tiles down,
    tiles across, tile * tile].

    Example: size (4, 4), tile 2. The tile at (0, 1) has pixels 2, 3, 6, 7.
    """
    down, across = size[0] // tile, size[1] // tile
    pixels = np.arange(size[0] * size[1]).reshape(down, tile, across, tile)
    return pixels.transpose(0, 2, 1, 3).reshape(down, across, tile * tile)


def interpolation(positions: Matrix, extent: int) -> Matrix:
    """Weights [len(positions), extent] of linear interpolation between samples.

    positions: in units of samples, where sample i is at i. Positions outside take the value of the
    first or last sample. Example: extent 3, position 0.25 gives [0.75, 0.25, 0].
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
    """Weights [len(positions), extent] that select sample floor(position)."""
    weights: Matrix = np.eye(extent)[np.floor(positions).astype(int)]
    return weights


@dataclass(frozen=True)
class _AxisReads:
    """How tiles read samples along one axis; k is the number of samples per tile."""

    weights: Matrix  # [pixels of a tile, k]
    samples: Indices  # [tiles, k], clipped to the level


def _level_axis(extent: int, grid: int, side: int, resize: Resize) -> _AxisReads:
    """Reads of a direct level by tiles of `side` pixels, on an axis of `extent` samples and `grid`
    pixels.

    Example: extent 16, grid 64, side 8, bilinear. Tile 1 reads samples 1, 2, 3, 4. Its first
    pixel, 8.5, lies between samples 1 (at 6) and 2 (at 10): its weights are 0.375, 0.625, 0, 0.
    """
    samples_per_tile = side * extent // grid
    positions: Matrix = (np.arange(side, dtype=np.float64) + 0.5) * (extent / grid)
    if resize == "nearest":
        weights, margin = selection(positions, samples_per_tile), 0
    else:
        # -0.5: pixel centers to sample numbers; +1: the first sample read lies before the tile.
        weights, margin = interpolation(positions - 0.5 + 1, samples_per_tile + 2), 1
    first = np.arange(grid // side)[:, None] * samples_per_tile
    samples = first + np.arange(-margin, samples_per_tile + margin)
    return _AxisReads(weights, np.clip(samples, 0, extent - 1))


def _node_axis(squares: int, tile: int, count: int, resize: Resize) -> _AxisReads:
    """Reads of the nodes by tiles of `count` squares; an axis has `squares` of `tile` pixels each.

    Example: squares 8, tile 8, count 1, bilinear. Tile 1 reads nodes 1 and 2; its first pixel has
    weights 0.9375 and 0.0625.
    """
    positions: Matrix = (np.arange(tile * count, dtype=np.float64) + 0.5) / tile
    if resize == "nearest":
        weights, margin = selection(positions, count), 0
    else:
        weights, margin = interpolation(positions, count + 1), 1
    first = np.arange(0, squares, count)
    return _AxisReads(weights, first[:, None] + np.arange(count + margin))


def _kron(down: _AxisReads, across: _AxisReads) -> Matrix:
    """Weights of both axes [pixels of a tile, k down * k across], pixels and samples row-major."""
    return np.kron(down.weights, across.weights).astype(np.float64)


def _row_major(down: _AxisReads, across: _AxisReads, columns: int) -> Indices:
    """Samples of both axes as numbers in a level of so many columns: [tiles down, tiles across,
    k down * k across]."""
    both = down.samples[:, None, :, None] * columns + across.samples[None, :, None, :]
    return both.reshape(len(down.samples), len(across.samples), -1)
