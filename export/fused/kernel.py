"""The label branch as two Triton kernels, which never write a hidden activation to memory.

`project_rows` multiplies features of one level by the first layers of all members. Its output is
the table of a band (some rows of tiles), which is small enough to stay in the L2 cache.
`label_pixels` has one program per tile of pixels. For every member it resizes the table to the
tile (a product with constant weights, see export.graph.tiles), adds the product of the finest
level, and keeps the other layers and the sums over members in registers.

export.graph.label_branch computes the same in torch and is the reference. Every `constexpr` that is
the length of a `tl.arange` is a power of two; export.fused.weights pads smaller sizes with zeros.
Comparisons are written so that a NaN stays NaN and reaches the score.
"""

import triton
import triton.language as tl

# Probabilities of the mixture are clamped as in export.graph.ensemble.
EPS = tl.constexpr(1.1920928955078125e-07)
LOWEST = tl.constexpr(-1e30)  # below every logit
# Values of MEASURE; of the entropy, 1, the members' entropies stay 0.
JENSEN_SHANNON = tl.constexpr(0)
LEAST_CONFIDENCE = tl.constexpr(2)


@triton.jit
def project_rows(
    features,
    weights,
    table,
    rows,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    """table = features @ weights, accumulated in float32.

    features    float16 [rows, CHANNELS]
    weights     float16 [CHANNELS, WIDTH]
    table       float16 [rows, WIDTH], output
    rows        int32

    A program computes ROWS x COLUMNS elements, STEP channels at a time. The grid of programs is
    (WIDTH / COLUMNS, rows / ROWS rounded up).
    """
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
    table,
    nodes,
    finest,
    reads,
    interpolation,
    weight1,
    weight2,
    bias2,
    weight3,
    bias3,
    labels,
    scores,
    table_rows,
    first_tile,
    outputs,
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
    CHUNK: tl.constexpr,
    VOTES: tl.constexpr,
    SCORED: tl.constexpr,
    MEASURE: tl.constexpr,
):
    """Labels and scores of the pixels of one tile; the grid of programs is (tiles of the band,).

    With K = K0 + K1 samples read per tile, F = F0 + F1 channels of the finest level, and
    P = TILE_ROWS * TILE_COLUMNS pixels per tile:

    Inputs
      table          float16 [table_rows, MEMBERS * H1]   projected coarse levels of the band
      nodes          float16 [nodes, MEMBERS * H1]        sums of the coarsest levels, with bias
      finest         float16 [GRID * GRID, F]             features of the finest level
      reads          int32   [tiles of the band, K]       rows: below table_rows of the table, from
                                                          table_rows on of the nodes
      interpolation  float16 [P, K]                       weights of the rows, for every tile
      weight1        float16 [F, MEMBERS * H1]            first layer, for the finest level
      weight2, bias2 float16 [MEMBERS, H1, H2], float32 [MEMBERS, H2]
      weight3, bias3 float16 [MEMBERS, H2, OUTPUTS], float32 [MEMBERS, OUTPUTS]; the bias of a
                     padded class is -1e30
    Outputs
      labels         float32 [HEIGHT * GRID] class ids if VOTES, else [outputs, HEIGHT * GRID] means
      scores         float32 [HEIGHT * GRID] by MEASURE if VOTES, else variance; only if SCORED
    Integers, int32
      table_rows     rows of the band's table
      first_tile     number of the band's first tile; tiles of the grid are numbered row-major
      outputs        outputs without padding
    Constants
      CROP_TOP, HEIGHT         first row of the grid in the output, and number of rows
      GRID                     side of the label grid, pixels
      TILE_ROWS, TILE_COLUMNS  size of a tile, pixels
      K0, K1; F0, F1           powers of two, see export.fused.tiles.slabs; K1 and F1 may be 0
      MEMBERS, H1, H2, OUTPUTS members, hidden widths and outputs, padded
      CHUNK                    units of H1 computed at a time
      VOTES                    1: majority of classes; 0: mean of values
      SCORED                   1: also write scores
      MEASURE                  0: Jensen-Shannon divergence, 1: entropy, 2: least confidence

    Example: GRID 64, tiles of 8 x 16, so 4 tiles across. Tile 6 is in row 1 and column 2 of tiles.
    Its pixel 17 is in row 1 and column 1 of the tile: y = 1 * 8 + 1 = 9, x = 2 * 16 + 1 = 33.
    """
    PIXELS: tl.constexpr = TILE_ROWS * TILE_COLUMNS
    WIDTH: tl.constexpr = MEMBERS * H1
    ACROSS: tl.constexpr = GRID // TILE_COLUMNS
    CHUNKS: tl.constexpr = H1 // CHUNK
    tile = first_tile + tl.program_id(0)
    pixel = tl.arange(0, PIXELS)
    y = tile // ACROSS * TILE_ROWS + pixel // TILE_COLUMNS
    x = tile % ACROSS * TILE_COLUMNS + pixel % TILE_COLUMNS
    column = tl.arange(0, CHUNK)
    unit2 = tl.arange(0, H2)
    output = tl.arange(0, OUTPUTS)

    # The same for every member: weights and addresses of the rows read, and the finest features.
    k0 = tl.arange(0, K0)
    share0 = tl.load(interpolation + pixel[:, None] * (K0 + K1) + k0[None, :])
    row0 = tl.load(reads + tl.program_id(0) * (K0 + K1) + k0).to(tl.int64)
    from0 = tl.where(row0 < table_rows, table + row0 * WIDTH, nodes + (row0 - table_rows) * WIDTH)
    # Rows are aligned. Without this hint the compiler loads two bytes at a time and not ahead.
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

    # Sums over the members:  if VOTES                 else
    #   sums                  votes of each class      differences from the first member
    #   spread                probabilities            squared differences
    #   entropies             entropy in nats,         unused
    #                         for the divergence
    #   first                 unused                   values of the first member
    first = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    sums = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    spread = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    entropies = tl.zeros((PIXELS,), tl.float32)
    layer2 = tl.zeros((PIXELS, H2), tl.float32)  # one member, summed over chunks of H1
    for step in range(MEMBERS * CHUNKS):
        member = step // CHUNKS
        chunk = step % CHUNKS * CHUNK  # first unit of H1
        columns = member * H1 + chunk + column
        layer1 = tl.dot(share0, tl.load(from0[:, None] + columns[None, :]))
        if K1 > 0:
            layer1 = tl.dot(share1, tl.load(from1[:, None] + columns[None, :]), layer1)
        layer1 = tl.dot(finest0, tl.load(weight1 + f0[:, None] * WIDTH + columns[None, :]), layer1)
        if F1 > 0:
            layer1 = tl.dot(
                finest1, tl.load(weight1 + f1[:, None] * WIDTH + columns[None, :]), layer1
            )
        w2 = tl.load(weight2 + (member * H1 + chunk + column)[:, None] * H2 + unit2[None, :])
        layer2 = tl.dot(tl.where(layer1 < 0, 0.0, layer1).to(tl.float16), w2, layer2)
        # Read outside the branch: a product that only a branch reads is left without its own wait,
        # and ptxas then waits behind every product (C7513, C7514).
        biased2 = layer2 + tl.load(bias2 + member * H2 + unit2)[None, :]
        if chunk == H1 - CHUNK:  # the last chunk of this member
            w3 = tl.load(weight3 + (member * H2 + unit2)[:, None] * OUTPUTS + output[None, :])
            values = tl.dot(tl.where(biased2 < 0, 0.0, biased2).to(tl.float16), w3)
            values += tl.load(bias3 + member * OUTPUTS + output)[None, :]
            layer2 = tl.zeros((PIXELS, H2), tl.float32)
            if VOTES:
                number = tl.where(values == values, values, LOWEST)  # argmax needs no NaN
                sums += (output[None, :] == tl.argmax(number, 1)[:, None]).to(tl.float32)
                if SCORED:
                    values -= tl.max(number, 1)[:, None]
                    powers = tl.exp(values)
                    total = tl.sum(powers, 1)
                    spread += powers / total[:, None]
                    if MEASURE == JENSEN_SHANNON:
                        entropies += tl.log(total) - tl.sum(powers * values, 1) / total
            else:
                first = tl.where(member == 0, values, first)
                difference = values - first
                sums += difference
                spread += difference * difference

    kept = (y >= CROP_TOP) & (y < CROP_TOP + HEIGHT)
    place = (y - CROP_TOP) * GRID + x
    if VOTES:
        # argmax returns the first of equal maxima: ties go to the smallest class id.
        tl.store(labels + place, tl.argmax(sums, 1).to(tl.float32), mask=kept)
        if SCORED:
            whole = tl.sum(spread, 1)  # carries a NaN, which the maximum need not
            if MEASURE == LEAST_CONFIDENCE:
                uncertainty = 1 - tl.max(tl.where(spread == spread, spread, 0.0), 1) / whole
            else:
                mixture = spread / whole[:, None]
                clamped = tl.where(
                    mixture < EPS, EPS, tl.where(mixture > 1 - EPS, 1 - EPS, mixture)
                )
                uncertainty = -tl.sum(mixture * tl.log(clamped), 1) - entropies / MEMBERS
            tl.store(scores + place, uncertainty, mask=kept)
    else:
        shift = sums / MEMBERS
        planes = labels + output[None, :].to(tl.int64) * (HEIGHT * GRID)
        real = output[None, :] < outputs
        tl.store(planes + place[:, None], first + shift, mask=kept[:, None] & real)
        if SCORED:
            variance = tl.sum(spread / MEMBERS - shift * shift, 1) / outputs
            tl.store(scores + place, variance, mask=kept)
