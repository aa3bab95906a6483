"""Image score and on-device filter, from operators that every TensorRT from 8.5 has.

Neither TopK (limited to 3,840), sort, nor loops: bisection and prefix counts do their work.
"""

import torch
from torch import Tensor

ROUNDS = 24  # each halves the bracket: 2**-24 of the maximum is float32's own resolution


def top_mean(x: Tensor, count: int) -> Tensor:
    """Mean of the `count` largest values of each row, float32 [N, P] -> [N].

    mean_top_k(x) = min over t of t + sum(max(x - t, 0)) / k; the function is convex with slope
    1 - #(x > t) / k, so bisection on that count, from 0 to the row's maximum, finds t. Ending to
    the right of the minimum keeps the error under one bracket: the slope there is at most 1.
    """
    bracket = x.amax(dim=1, keepdim=True).clamp(min=0)
    low = bracket * 0
    for _ in range(ROUNDS):
        bracket = bracket * 0.5
        middle = low + bracket
        above = (x > middle).to(x.dtype).sum(dim=1, keepdim=True)
        low = torch.where(above > count, middle, low)
    high = low + bracket
    total = x.sum(dim=1)
    score = high[:, 0] + torch.relu(x - high).sum(dim=1) / count
    # The second candidate is t = 0. Adding 0 * total carries a NaN or infinity of any pixel
    # into the score, whatever the runtime's max and min make of it.
    return torch.minimum(score, total / count) + total * 0


def kept_first(keep: Tensor) -> tuple[Tensor, Tensor]:
    """keep float32 [N] of 0 and 1 -> (sample int64 [N], kept int32 []).

    `sample` lists the kept rows, then the others, each in order: a stable partition by prefix
    counts (matmul with a triangle), inverted by comparing positions with a ramp.
    """
    ramp = torch.arange(keep.shape[0], device=keep.device).to(keep.dtype)
    lower = (ramp[:, None] >= ramp[None, :]).to(keep.dtype)  # [N, N]
    dropped = 1 - keep
    kept = keep.sum()
    upto = torch.matmul(lower, torch.stack([keep, dropped], dim=1))  # [N, 2], inclusive counts
    position = keep * (upto[:, 0] - 1) + dropped * (kept + upto[:, 1] - 1)
    places = (position[None, :] == ramp[:, None]).to(keep.dtype)  # [row out, row in]
    sample = torch.matmul(places, ramp[:, None])[:, 0]
    return sample.to(torch.int64), kept.to(torch.int32)
