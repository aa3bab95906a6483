"""Generator taps -> per-pixel feature vectors (the hypercolumn), section 3.1 of DatasetGAN.

Training gathers single pixels; the whole tensor is built only on small crops and in
references, because at 512 px it is 5 to 6 GB an image.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["bilinear", "nearest"]


def reduce_tap(tap: Tensor, grid: int) -> Tensor:
    """Taps finer than the label grid [N, C, r, r] are first resized to it (a 2x2 mean at 2:1),
    however the coarser ones are."""
    if tap.shape[-1] <= grid:
        return tap
    return F.interpolate(tap, size=(grid, grid), mode="bilinear", align_corners=False)


def hypercolumn(taps: list[Tensor], grid: int, resize: Resize = "bilinear") -> Tensor:
    """taps [N, C_l, r_l, r_l] -> float32 [N, D, grid, grid], D = sum of C_l, each level resized
    directly to the grid (bilinear: half-pixel centres, edges replicated)."""
    corners = False if resize == "bilinear" else None
    return torch.cat(
        [
            F.interpolate(
                reduce_tap(t, grid), size=(grid, grid), mode=resize, align_corners=corners
            )
            for t in taps
        ],
        dim=1,
    )


def gather_features(
    taps: list[Tensor], rows: Tensor, columns: Tensor, grid: int, resize: Resize = "bilinear"
) -> Tensor:
    """Features of chosen grid pixels, from the taps at their own resolution.

    `rows` and `columns` are int64 [N, P], under `grid`. Returns float32 [N, P, D], equal to
    `hypercolumn(taps, grid, resize)` at those pixels.
    """
    # grid_sample's normalised coordinates put the centre of pixel i at (2i + 1) / grid - 1.
    centres = (torch.stack([columns, rows], dim=-1) * 2 + 1) / grid - 1  # [N, P, 2]
    gathered = [
        F.grid_sample(
            reduce_tap(t, grid),
            centres[:, None].to(t.dtype),
            mode=resize,
            padding_mode="border",
            align_corners=False,
        )[:, :, 0]  # [N, C, P]
        for t in taps
    ]
    return torch.cat(gathered, dim=1).transpose(1, 2)
