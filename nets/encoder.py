"""Image -> w+: residual steps from the mean latent (ReStyle, ICCV 2021), on a small ResNet.

The first step sees the image beside the mean latent's image; each further one beside the image
of the latents so far, and adds to them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 16  # channels normalised together, within an image: images do not see each other
LAST = 4  # positions along each side of the last map, kept apart: places matter
SLOPE = 0.2  # of the leaky ReLU


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder."""

    height: int  # of the images it reads, pixels
    width: int
    num_ws: int  # rows of w+ that it gives
    w_dim: int
    channels: tuple[int, ...] = (32, 64, 128, 256, 256)  # after the stem, then of each halving
    hidden: int = 512  # width of the layer before the latents
    iterations: int = 3  # residual steps

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or any(c < 1 or c % GROUP for c in self.channels):
            raise ValueError(
                f"channels are {list(self.channels)}; there must be two or more, all multiples "
                f"of {GROUP}"
            )


def encoder_channels(extent: int) -> tuple[int, ...]:
    """32, doubling up to 256, with halvings down to 4 positions across `extent` pixels."""
    channels = [32]
    while extent > LAST:
        channels.append(min(2 * channels[-1], 256))
        extent = (extent + 1) // 2
    return (*channels, channels[-1]) if len(channels) == 1 else tuple(channels)


class HalvingBlock(nn.Module):
    """Two convolutions beside an average, the first at stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(in_channels // GROUP, in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(out_channels // GROUP, out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, in, h, w] -> [N, out, h/2, w/2], rounded up
        halved: Tensor = self.skip(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))
        x = self.conv0(F.leaky_relu(self.norm0(x), SLOPE))
        x = self.conv1(F.leaky_relu(self.norm1(x), SLOPE))
        return halved + x


class Encoder(nn.Module):
    """One residual step: image and present reconstruction -> change of the present latents."""

    w_avg: Tensor
    w_std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.channels[0], config.channels[-1]
        self.stem = nn.Conv2d(6, first, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                HalvingBlock(a, b)
                for a, b in zip(config.channels[:-1], config.channels[1:], strict=True)
            )
        )
        self.norm = nn.GroupNorm(last // GROUP, last)
        self.linear0 = nn.Linear(last * LAST * LAST, config.hidden)
        self.linear1 = nn.Linear(config.hidden, config.num_ws * config.w_dim)
        nn.init.zeros_(self.linear1.bias)
        # Of w, for the start and for changes of unit size; set before training.
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.register_buffer("w_std", torch.ones(config.w_dim))

    def forward(
        self,
        image: Tensor,  # [N, 3, height, width] in [0, 1]
        shown: Tensor,  # [N, 3, height, width], what `ws` make, nominally in [0, 1]
        ws: Tensor,  # [N or 1, num_ws, w_dim]
    ) -> Tensor:
        """The next latents, [N, num_ws, w_dim]. Raises ValueError for other extents."""
        expected = (3, self.config.height, self.config.width)
        for x in (image, shown):
            if tuple(x.shape[1:]) != expected:
                raise ValueError(f"an image is {list(x.shape[1:])}; it must be {list(expected)}")
        x = self.blocks(self.stem(torch.cat([image, shown], dim=1) * 2 - 1))  # [N, last, h, w]
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.norm(x), SLOPE), LAST)
        x = F.leaky_relu(self.linear0(x.flatten(1)), SLOPE)
        change: Tensor = self.linear1(x).view(-1, *ws.shape[1:])
        return ws + self.w_std * change

    def mean_ws(self, count: int) -> Tensor:
        """What the first step starts from, [count, num_ws, w_dim]."""
        return self.w_avg.expand(count, self.config.num_ws, -1)
