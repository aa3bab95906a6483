"""A small U-Net for semantic segmentation (Ronneberger et al., MICCAI 2015, arXiv 1505.04597).

Unlike the paper it has padded convolutions, batch normalization and nearest-neighbor upsampling.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    """[N, inputs, h, w] -> [N, outputs, h, w]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Segmenter(nn.Module):
    """images float32 [N, 3, H, W] in [-1, 1] -> logits [N, classes, H, W]."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(DoubleConv, (3, *widths), widths))
        self.up = nn.ModuleList(
            DoubleConv(fine + coarse, fine) for fine, coarse in itertools.pairwise(widths)
        )
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [self.down[0](images)]
        for block in list(self.down)[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for block in reversed(self.up):
            fine = levels.pop()
            x = block(torch.cat([fine, F.interpolate(x, size=fine.shape[2:])], dim=1))
        logits: Tensor = self.head(x)
        return logits
