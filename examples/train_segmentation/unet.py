"""A small U-Net with two heads: classes and keypoint heatmaps.

Ronneberger et al., U-Net, MICCAI 2015 (arXiv 1505.04597), with padded convolutions and batch
normalization, and nearest-neighbor upsampling instead of transposed convolutions.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 2  # the keypoint is the centroid within this many pixels of the heatmap's peak, in x and y


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network; 0.49 million parameters by default."""

    classes: int
    keypoints: int
    widths: tuple[int, ...] = (16, 32, 64, 128)  # channels, from full resolution down


@dataclass(frozen=True)
class UNetOutput:
    """The network's output for n images."""

    classes: Tensor  # float32 [n, C, H, W], logits over C
    heatmaps: Tensor  # float32 [n, K, H, W], logits over all pixels


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """[n, inputs, h, w] -> [n, outputs, h, w]."""

    def one(inputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(*one(inputs), *one(outputs))


class UNet(nn.Module):
    """images uint8 [n, 3, H, W] -> UNetOutput; H and W are multiples of 2^(levels - 1)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(map(convolutions, (3, *widths), widths))
        self.up = nn.ModuleList(
            convolutions(fine + coarse, fine) for fine, coarse in itertools.pairwise(widths)
        )
        self.heads = nn.Conv2d(widths[0], config.classes + config.keypoints, 1)

    def forward(self, images: Tensor) -> UNetOutput:
        step = 2 ** (len(self.down) - 1)
        if images.dtype != torch.uint8 or images.shape[2] % step or images.shape[3] % step:
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}; give uint8 with height and "
                f"width divisible by {step}"
            )
        x = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            levels.append(x)
        for block, fine in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            x = block(torch.cat([fine, F.interpolate(x, scale_factor=2.0)], dim=1))
        classes, heatmaps = self.heads(x).split([self.config.classes, self.config.keypoints], dim=1)
        return UNetOutput(classes, heatmaps)


def masks_from_logits(classes: Tensor) -> Tensor:
    """float32 [n, C, H, W] -> uint8 [n, H, W], the most probable class."""
    return classes.argmax(dim=1).byte()


def points_from_heatmaps(heatmaps: Tensor) -> Tensor:
    """float32 [n, K, H, W] -> x, y in pixels (centers at +0.5), float32 [n, K, 2]."""
    height, width = heatmaps.shape[2:]
    weight = heatmaps.flatten(2).softmax(dim=2)
    peak = weight.argmax(dim=2, keepdim=True)
    pixel = torch.arange(height * width)
    x, y = pixel % width, pixel // width
    near = ((x - peak % width).abs() <= WINDOW) & ((y - peak // width).abs() <= WINDOW)
    weight = weight * near
    points = torch.stack([(weight * x).sum(dim=2), (weight * y).sum(dim=2)], dim=2)
    return points / weight.sum(dim=2)[..., None] + 0.5
