"""The refiner and its critic (Shrivastava et al., Learning from simulated and unsupervised images
through adversarial training, CVPR 2017, arXiv 1612.07828), and the grain the refiner draws on.

Images are float32 [N, C, H, W] in [-1, 1]. Nothing here has a stride but the critic, so that a
refined pixel lies where its original lay.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATTERNS = 8  # that a grain is mixed from
EPS = 1e-8


@dataclass(frozen=True)
class RefinerConfig:
    """Shape of a refiner; the paper's has width 64 and 4 blocks, and no grain."""

    channels: int = 3  # of the images
    width: int = 24  # of the hidden layers
    blocks: int = 3
    grain: int = 3  # channels of noise beside the image; 0: as the paper has it


def framed(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H + 2, W + 2] with the border continued: zeros round every layer
    would draw a frame into the image."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)


class ResidualBlock(nn.Module):
    """[N, width, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(width, width, 3)
        self.conv1 = nn.Conv2d(width, width, 3)
        nn.init.zeros_(self.conv1.weight)  # a new block passes on what it is given

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv1(framed(F.relu(self.conv0(framed(x))))))


class Refiner(nn.Module):
    """images [N, C, H, W] in [-1, 1], grain [N, G, H, W] standard normal -> images in (-1, 1).

    The paper's network and two additions: the image also goes to the output through one 1x1
    convolution, which a new refiner needs little more than; and noise comes in, because a
    function of the image alone cannot be grainy where the image is flat.
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
        # tanh(1.2 x) is nowhere further from x than 0.17 in [-1, 1].
        self.skip.weight.data.copy_(1.2 * torch.eye(config.channels)[:, :, None, None])

    def forward(self, images: Tensor, grain: Tensor | None = None) -> Tensor:
        x = images if grain is None else torch.cat([images, grain], dim=1)
        x = F.relu(self.stem(framed(x)))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.skip(images) + self.out(x))


class PatchCritic(nn.Module):
    """images [N, C, H, W] -> logits [N, 1, h, w], one for each patch: positive says real.

    The paper's layers; h and w are about a quarter of H and W. There is no activation on the
    logits, and one of them in place of a softmax over two, which is the same function.
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
    """ws [N, num_ws, w_dim] -> grain [N, G, H, W]: every image its own, and always the same.

    Fixed patterns, mixed with weights of unit length that are linear in w: each value is then
    standard normal, and independent of its neighbours, as in training.
    """

    center: Tensor
    directions: Tensor
    patterns: Tensor

    def __init__(self, grain: int, height: int, width: int, w_avg: Tensor, seed: int) -> None:
        super().__init__()
        chances = torch.Generator().manual_seed(seed)
        directions = torch.randn(len(w_avg), PATTERNS, generator=chances)
        patterns = torch.randn(PATTERNS, grain * height * width, generator=chances)
        self.extents = (grain, height, width)
        self.register_buffer("center", w_avg.detach().clone())
        self.register_buffer("directions", directions)
        self.register_buffer("patterns", patterns)

    def forward(self, ws: Tensor) -> Tensor:
        weights = torch.matmul(ws.mean(dim=1) - self.center, self.directions)  # [N, PATTERNS]
        weights = weights * torch.rsqrt(weights.square().sum(dim=1, keepdim=True) + EPS)
        return torch.matmul(weights, self.patterns).reshape(-1, *self.extents)
