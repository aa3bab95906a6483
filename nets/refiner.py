"""Refiner, critic and grain: images of the generator -> images that look like real ones.

After Shrivastava et al., Learning from simulated and unsupervised images through adversarial
training, CVPR 2017, arXiv 1612.07828. Images are float32 [N, C, H, W] in [-1, 1]. The refiner has
no strides, so a refined pixel is at the position of its original.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATTERNS = 8  # noise patterns that a grain is a mixture of
EPS = 1e-8


@dataclass(frozen=True)
class RefinerConfig:
    """Shape of a refiner. The paper's has width 64, 4 blocks and no grain."""

    channels: int = 3  # channels of the images
    width: int = 24  # channels of the hidden layers
    blocks: int = 3  # residual blocks
    grain: int = 3  # channels of noise in the input, beside the image; 0: none, as in the paper


def framed(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H + 2, W + 2] with replicated borders.

    Zero padding in every layer would draw a visible frame into the image.
    """
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)


class ResidualBlock(nn.Module):
    """[N, width, H, W] -> same shape: two 3x3 convolutions and a skip path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(width, width, 3)
        self.conv1 = nn.Conv2d(width, width, 3)
        nn.init.zeros_(self.conv1.weight)  # a new block adds only a constant, its bias

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv1(framed(F.relu(self.conv0(framed(x))))))


class Refiner(nn.Module):
    """Images [N, C, H, W] in [-1, 1], grain [N, G, H, W] standard normal -> images in (-1, 1).

    Two additions to the paper's network. A 1x1 convolution takes the image to the output, so that a
    new refiner starts near the identity. Noise is an input, because a function of the image alone
    cannot add grain where the image is flat.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(config.channels + config.grain, config.width, 3)
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.blocks))
        self.out = nn.Conv2d(config.width, config.channels, 1)
        self.skip = nn.Conv2d(config.channels, config.channels, 1, bias=False)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)
        # A new refiner is tanh(1.2 x), which differs from x by at most 0.17 in [-1, 1].
        self.skip.weight.data.copy_(1.2 * torch.eye(config.channels)[:, :, None, None])

    def forward(self, images: Tensor, grain: Tensor | None = None) -> Tensor:
        x = images if grain is None else torch.cat([images, grain], dim=1)
        x = F.relu(self.stem(framed(x)))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.skip(images) + self.out(x))


class PatchCritic(nn.Module):
    """Images [N, C, H, W] -> logits [N, 1, h, w], one per patch, positive for real images.

    The layers are the paper's; h and w are about a quarter of H and W. The paper has a softmax over
    two classes, which is the same function as one logit.
    """

    def __init__(self, channels: int, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, width * 2 // 3, 3, stride=2, padding=1), nn.ReLU(),
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(width * 2 // 3, width // 3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width // 3, width // 3, 1), nn.ReLU(),
            nn.Conv2d(width // 3, 1, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class GrainSource(nn.Module):
    """ws [N, num_ws, w_dim] -> grain [N, G, H, W], which is a function of ws.

    The grain of an image is a mixture of 8 fixed noise patterns. The weights are linear in the mean
    of ws and have unit length, so that a value is standard normal and independent of its
    neighbors, as the noise of training is.
    """

    center: Tensor
    directions: Tensor
    patterns: Tensor

    def __init__(self, grain: int, height: int, width: int, w_avg: Tensor, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        directions = torch.randn(len(w_avg), PATTERNS, generator=rng)
        patterns = torch.randn(PATTERNS, grain * height * width, generator=rng)
        self.extents = (grain, height, width)
        self.register_buffer("center", w_avg.detach().clone())
        self.register_buffer("directions", directions)
        self.register_buffer("patterns", patterns)

    def forward(self, ws: Tensor) -> Tensor:
        weights = torch.matmul(ws.mean(dim=1) - self.center, self.directions)  # [N, PATTERNS]
        weights = weights * torch.rsqrt(weights.square().sum(dim=1, keepdim=True) + EPS)
        return torch.matmul(weights, self.patterns).reshape(-1, *self.extents)
