"""Score of a sample, predicate, and order of kept samples, in operators of TensorRT from 8.5 on.

TopK is limited to 3,840 values there, and sort and loops are missing. Bisection and prefix counts
replace them.
"""

import torch
from torch import Tensor

BISECTIONS = 24  # each halves the bracket: 2**-24 of the maximum is the precision of float32
HALVINGS = 16  # of the range of depths, which are served as float16


def top_mean(x: Tensor, count: int, rounds: int = BISECTIONS) -> Tensor:
    """Mean of the `count` largest values of each row, float32 [N, P] -> [N].

    The mean of the k largest values is the minimum over t of f(t) = t + sum(max(x - t, 0)) / k.
    f is convex with slope 1 - #(x > t) / k, so bisection on the number of values above t, between
    0 and the row's maximum, finds the minimum. The result is f at the right end of the last
    bracket: its error is under the bracket's width, because the slope there is at most 1.

    Example: x = (1, 2, 4, 5), k = 2. For t in [2, 4), 2 values lie above t and the slope is 0:
    f(2) = 2 + (2 + 3) / 2 = 4.5, the mean of 4 and 5.
    """
    bracket = x.amax(dim=1, keepdim=True).clamp(min=0)
    low = torch.zeros(1, 1, dtype=x.dtype, device=x.device)
    for _ in range(rounds):
        bracket = bracket * 0.5
        middle = low + bracket
        above = (x > middle).to(x.dtype).sum(dim=1, keepdim=True)
        # Not torch.where: TensorRT's compiler unfolds a chain of selections, and its build time
        # doubles with every round. bracket * 1 and bracket * 0 are exact.
        low = low + bracket * (above > count).to(x.dtype)
    high = low + bracket
    total = x.sum(dim=1)
    score = high[:, 0] + torch.relu(x - high).sum(dim=1) / count
    # total / count is f(0). Runtimes differ in what min and max do with NaN, so the score gets its
    # NaN from the total.
    return torch.minimum(score, total / count) + zero_of_finite(total)


def values_of_ranks(x: Tensor, ranks: Tensor, rounds: int = HALVINGS) -> Tensor:
    """The value of each rank among the values of each row, float32 [N, P], [Q] -> [N, Q].

    Rank 1 is the smallest value. Bisection between the row's minimum and maximum finds it: the
    result is at least the value, by under 2**-rounds of the distance between the two. Counts are
    exact up to 2**24 values. A row with a value that is not finite has no finite result.

    Example: x = (1, 2, 4, 5), ranks (2,). The bracket is 1 to 5. 2 values are over 3, so the second
    is in 1 to 3; 2 are over 2, so it is in 1 to 2; 3 are over 1.5, so it is in 1.5 to 2, and so on.
    """
    values, most = x[:, None], (x.shape[1] - ranks)[:, None]  # most: values over the one of a rank
    low = values.amin(dim=2, keepdim=True)
    bracket = values.amax(dim=2, keepdim=True) - low  # [N, 1, 1]
    for _ in range(rounds):
        bracket = bracket * 0.5
        middle = low + bracket  # [N, Q, 1] from the second round on
        above = (values > middle).to(x.dtype).sum(dim=2, keepdim=True)
        low = low + bracket * (above > most).to(x.dtype)  # as in top_mean
    # The total: runtimes differ in what min and max do with NaN.
    return (low + bracket)[:, :, 0] + zero_of_finite(x.sum(dim=1, keepdim=True))


def zero_of_finite(x: Tensor) -> Tensor:
    """0 where x is finite; NaN or infinite where it is not.

    The root of a finite float32 is under 2e19, so the product is rounded down to 0. Not x * 0 or
    x - x: compilers may replace those by 0, and TensorRT does unless it is told not to.
    """
    return torch.floor(torch.sqrt(x.abs()) * 1e-20)


def within_boxes(content: Tensor, boxes: Tensor) -> Tensor:
    """1 where all statistics of a sample are within the bounds of one of its boxes, else 0: [N].

    content [N, S]; boxes [N, B, 2, S], the lowest and highest values of each of B alternatives.
    """
    values = content[:, None]
    low = (values >= boxes[:, :, 0]).to(content.dtype)  # [N, B, S]
    high = (values <= boxes[:, :, 1]).to(content.dtype)
    return (low * high).amin(dim=2).amax(dim=1)


def kept_first(keep: Tensor) -> tuple[Tensor, Tensor]:
    """keep float32 [N] of 0 and 1 -> (sample int64 [N], kept int32 []).

    `sample` lists the kept rows, then the others, both in order; `kept` is the number of kept rows.
    Prefix counts are a product with a triangular matrix; the inverse of the permutation comes from
    comparing positions with 0, 1, 2, ...

    Example: keep 0 1 0 1. There are 2 kept rows, so the rows move to positions 2 0 3 1: sample is
    1 3 0 2.
    """
    ramp = torch.arange(keep.shape[0], device=keep.device).to(keep.dtype)
    lower = (ramp[:, None] >= ramp[None, :]).to(keep.dtype)  # [N, N]
    dropped = 1 - keep
    kept = keep.sum()
    counts = torch.matmul(lower, torch.stack([keep, dropped], dim=1))  # [N, 2], up to each row
    position = keep * (counts[:, 0] - 1) + dropped * (kept + counts[:, 1] - 1)
    permutation = (position[None, :] == ramp[:, None]).to(keep.dtype)  # [row out, row in]
    sample = torch.matmul(permutation, ramp[:, None])[:, 0]
    return sample.to(torch.int64), kept.to(torch.int32)
