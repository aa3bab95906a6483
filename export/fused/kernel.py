"""The label branch as two kernels: no hidden activation is ever written to memory.

`project_rows` multiplies rows of one level of features by the first layers of all members: the
table of a band of the picture, small enough to stay in the L2 cache. `label_pixels` gives one
program a tile of pixels: for every member it interpolates the table (a product with constant
weights, as in export.graph.tiles), adds the product of the finest level, and takes the other
layers and the members' sums in registers. The reference is export.graph.label_branch.

Every extent that is `constexpr` and stands in a range is a power of two; what is smaller is padded
with zeros by export.fused.weights. Comparisons are written so that a NaN stays one and reaches the
score.
"""

import triton
import triton.language as tl

# Clamp of probabilities in the mixture's entropy, as in export.graph.ensemble.
EPS = tl.constexpr(1.1920928955078125e-07)
LEAST = tl.constexpr(-1e30)  # below every logit


@triton.jit
def project_rows(
    features,  # float16 [rows, CHANNELS]
    weights,  # float16 [CHANNELS, WIDTH]
    table,  # float16 [rows, WIDTH]
    rows,  # int32
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,  # of a block
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    """table = features @ weights; programs: (blocks of columns, blocks of rows)."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    k = tl.arange(0, STEP)
    inside = row[:, None] < rows
    source = features + row[:, None].to(tl.int64) * CHANNELS
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, CHANNELS, STEP):
        x = tl.load(source + (start + k)[None, :], mask=inside, other=0.0)
        w = tl.load(weights + (start + k)[:, None] * WIDTH + column[None, :])
        sums = tl.dot(x, w, sums)
    target = table + row[:, None].to(tl.int64) * WIDTH + column[None, :]
    tl.store(target, sums.to(tl.float16), mask=inside)


@triton.jit
def label_pixels(
    table,  # float16 [table rows, MEMBERS * H1]
    nodes,  # float16 [nodes, MEMBERS * H1], behind the table's rows in `reads`
    finest,  # float16 [GRID * GRID, F0 + F1]
    reads,  # int32 [tiles, K0 + K1], rows of the table, then of the nodes
    interpolation,  # float16 [PIXELS, K0 + K1]
    weight1,  # float16 [F0 + F1, MEMBERS * H1], of the finest level
    weight2,  # float16 [MEMBERS, H1, H2]
    bias2,  # float32 [MEMBERS, H2]
    weight3,  # float16 [MEMBERS, H2, OUTPUTS]
    bias3,  # float32 [MEMBERS, OUTPUTS]; -1e30 where there is no such class
    labels,  # float32 [HEIGHT * GRID] class ids, or [outputs, HEIGHT * GRID] means
    scores,  # float32 [HEIGHT * GRID]: divergence or variance, if SCORED
    table_rows,  # int32
    first_tile,  # int32: of this band
    outputs,  # int32: without padding
    CROP_TOP: tl.constexpr,
    HEIGHT: tl.constexpr,
    GRID: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    F0: tl.constexpr,
    F1: tl.constexpr,
    MEMBERS: tl.constexpr,
    H1: tl.constexpr,
    H2: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHUNK: tl.constexpr,  # of H1 at a time
    VOTES: tl.constexpr,  # a majority of classes, else a mean of values
    SCORED: tl.constexpr,
):
    """Every pixel of a tile: all members, then labels and score; programs: (tiles,)."""
    PIXELS: tl.constexpr = TILE_ROWS * TILE_COLUMNS
    WIDTH: tl.constexpr = MEMBERS * H1
    ACROSS: tl.constexpr = GRID // TILE_COLUMNS
    CHUNKS: tl.constexpr = H1 // CHUNK
    tile = first_tile + tl.program_id(0)
    pixel = tl.arange(0, PIXELS)
    y = tile // ACROSS * TILE_ROWS + pixel // TILE_COLUMNS
    x = tile % ACROSS * TILE_COLUMNS + pixel % TILE_COLUMNS
    column = tl.arange(0, CHUNK)
    hidden = tl.arange(0, H2)
    output = tl.arange(0, OUTPUTS)

    # What is the same for every member: how the tile reads, and its finest features.
    k0 = tl.arange(0, K0)
    share0 = tl.load(interpolation + pixel[:, None] * (K0 + K1) + k0[None, :])
    row0 = tl.load(reads + tl.program_id(0) * (K0 + K1) + k0).to(tl.int64)
    from0 = tl.where(row0 < table_rows, table + row0 * WIDTH, nodes + (row0 - table_rows) * WIDTH)
    # Rows are whole: without this hint the compiler loads two bytes at a time, and not ahead.
    from0 = tl.multiple_of(from0, 16)
    if K1 > 0:
        k1 = K0 + tl.arange(0, K1)
        share1 = tl.load(interpolation + pixel[:, None] * (K0 + K1) + k1[None, :])
        row1 = tl.load(reads + tl.program_id(0) * (K0 + K1) + k1).to(tl.int64)
        from1 = tl.where(
            row1 < table_rows, table + row1 * WIDTH, nodes + (row1 - table_rows) * WIDTH
        )
        from1 = tl.multiple_of(from1, 16)
    at = finest + (y * GRID + x)[:, None].to(tl.int64) * (F0 + F1)
    f0 = tl.arange(0, F0)
    finest0 = tl.load(at + f0[None, :])
    if F1 > 0:
        f1 = F0 + tl.arange(0, F1)
        finest1 = tl.load(at + f1[None, :])

    first = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    sums = tl.zeros((PIXELS, OUTPUTS), tl.float32)  # votes, or differences from the first member
    spread = tl.zeros((PIXELS, OUTPUTS), tl.float32)  # probabilities, or squared differences
    entropies = tl.zeros((PIXELS,), tl.float32)
    second = tl.zeros((PIXELS, H2), tl.float32)
    for step in range(MEMBERS * CHUNKS):
        member = step // CHUNKS
        chunk = step % CHUNKS * CHUNK
        columns = member * H1 + chunk + column
        x1 = tl.dot(share0, tl.load(from0[:, None] + columns[None, :]))
        if K1 > 0:
            x1 = tl.dot(share1, tl.load(from1[:, None] + columns[None, :]), x1)
        x1 = tl.dot(finest0, tl.load(weight1 + f0[:, None] * WIDTH + columns[None, :]), x1)
        if F1 > 0:
            x1 = tl.dot(finest1, tl.load(weight1 + f1[:, None] * WIDTH + columns[None, :]), x1)
        w2 = tl.load(weight2 + (member * H1 + chunk + column)[:, None] * H2 + hidden[None, :])
        second = tl.dot(tl.where(x1 < 0, 0.0, x1).to(tl.float16), w2, second)
        if chunk == H1 - CHUNK:
            second += tl.load(bias2 + member * H2 + hidden)[None, :]
            w3 = tl.load(weight3 + (member * H2 + hidden)[:, None] * OUTPUTS + output[None, :])
            third = tl.dot(tl.where(second < 0, 0.0, second).to(tl.float16), w3)
            third += tl.load(bias3 + member * OUTPUTS + output)[None, :]
            second = tl.zeros((PIXELS, H2), tl.float32)
            if VOTES:
                number = tl.where(third == third, third, LEAST)  # what is none has no order
                sums += (output[None, :] == tl.argmax(number, 1)[:, None]).to(tl.float32)
                if SCORED:
                    third -= tl.max(number, 1)[:, None]
                    powers = tl.exp(third)
                    total = tl.sum(powers, 1)
                    spread += powers / total[:, None]
                    entropies += tl.log(total) - tl.sum(powers * third, 1) / total
            else:
                first = tl.where(member == 0, third, first)
                difference = third - first
                sums += difference
                spread += difference * difference

    kept = (y >= CROP_TOP) & (y < CROP_TOP + HEIGHT)
    place = (y - CROP_TOP) * GRID + x
    if VOTES:
        # The first of equal maxima: ties go to the smallest class id.
        tl.store(labels + place, tl.argmax(sums, 1).to(tl.float32), mask=kept)
        if SCORED:
            mixture = spread / tl.sum(spread, 1)[:, None]
            clamped = tl.where(mixture < EPS, EPS, tl.where(mixture > 1 - EPS, 1 - EPS, mixture))
            divergence = -tl.sum(mixture * tl.log(clamped), 1) - entropies / MEMBERS
            tl.store(scores + place, divergence, mask=kept)
    else:
        shift = sums / MEMBERS
        planes = labels + output[None, :].to(tl.int64) * (HEIGHT * GRID)
        real = output[None, :] < outputs
        tl.store(planes + place[:, None], first + shift, mask=kept[:, None] & real)
        if SCORED:
            variance = tl.sum(spread / MEMBERS - shift * shift, 1) / outputs
            tl.store(scores + place, variance, mask=kept)
