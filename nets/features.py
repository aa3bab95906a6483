"""Generator taps -> one feature vector per pixel, the hypercolumn (DatasetGAN, section 3.1).

Training gathers the features of single pixels. Whole hypercolumns are built only for small crops
and in references, because at 512 px one image's takes 5 to 6 GB.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["bilinear", "nearest"]


def reduce_tap(tap: Tensor, grid: int) -> Tensor:
    """A tap [N, C, r, r] finer than the label grid, resized to it bilinearly; others unchanged.

    From r = 2 * grid this is the mean of 2x2 pixels. `resize` does not apply to it.
    """
    if tap.shape[-1] <= grid:
        return tap
    return F.interpolate(tap, size=(grid, grid), mode="bilinear", align_corners=False)


def hypercolumn(taps: list[Tensor], grid: int, resize: Resize = "bilinear") -> Tensor:
    """Taps [N, C_l, r_l, r_l] -> float32 [N, D, grid, grid], where D is the sum of the C_l.

    Each tap is resized to the grid in one step. Bilinear: half-pixel centers, edges replicated.
    """
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
    """Features of P pixels of the grid, computed from the taps at their own resolution.

    rows, columns: int64 [N, P] in [0, grid). Returns float32 [N, P, D], equal to
    `hypercolumn(taps, grid, resize)` at those pixels.
    """
    # grid_sample has the center of pixel i at (2i + 1) / grid - 1.
    centers = (torch.stack([columns, rows], dim=-1) * 2 + 1) / grid - 1  # [N, P, 2]
    gathered = [
        F.grid_sample(
            reduce_tap(t, grid),
            centers[:, None].to(t.dtype),
            mode=resize,
            padding_mode="border",
            align_corners=False,
        )[:, :, 0]  # [N, C, P]
        for t in taps
    ]
    return torch.cat(gathered, dim=1).transpose(1, 2)
