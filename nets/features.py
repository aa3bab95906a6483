"""Generator taps -> one feature vector per pixel, the hypercolumn (DatasetGAN, section 3.1).

Training gathers the features of single pixels. Whole hypercolumns are built only for small crops
and in references, because at 512 px one image's takes 5 to 6 GB.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["bilinear", "nearest"]


def reduce_tap(tap: Tensor, size: tuple[int, int]) -> Tensor:
    """A tap [N, C, h, w] finer than the label grid, resized to it bilinearly; others unchanged.

    size: (height, width) of the grid, which has the tap's aspect ratio. From a tap of twice that
    this is the mean of 2x2 pixels. `resize` does not apply to it.
    """
    if tap.shape[-2] <= size[0]:
        return tap
    return F.interpolate(tap, size=size, mode="bilinear", align_corners=False)


def hypercolumn(taps: list[Tensor], size: tuple[int, int], resize: Resize = "bilinear") -> Tensor:
    """Taps [N, C_l, h_l, w_l] -> float32 [N, D, H, W] of the grid's size (H, W), where D is the sum
    of the C_l.

    Each tap is resized to the grid in one step. Bilinear: half-pixel centers, edges replicated.
    """
    corners = False if resize == "bilinear" else None
    return torch.cat(
        [
            F.interpolate(reduce_tap(t, size), size=size, mode=resize, align_corners=corners)
            for t in taps
        ],
        dim=1,
    )


def gather_features(
    taps: list[Tensor],
    rows: Tensor,
    columns: Tensor,
    size: tuple[int, int],
    resize: Resize = "bilinear",
) -> Tensor:
    """Features of P pixels of the grid, computed from the taps at their own resolution.

    rows, columns: int64 [N, P], pixels of the grid of size (H, W). Returns float32 [N, P, D], equal
    to `hypercolumn(taps, size, resize)` at those pixels.
    """
    # grid_sample has the center of pixel i of n at (2i + 1) / n - 1.
    extents = torch.tensor(size[::-1], device=rows.device)
    centers = (torch.stack([columns, rows], dim=-1) * 2 + 1) / extents - 1  # [N, P, 2]
    gathered = [
        F.grid_sample(
            reduce_tap(t, size),
            centers[:, None].to(t.dtype),
            mode=resize,
            padding_mode="border",
            align_corners=False,
        )[:, :, 0]  # [N, C, P]
        for t in taps
    ]
    return torch.cat(gathered, dim=1).transpose(1, 2)
