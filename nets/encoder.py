"""Image -> w+, by a small ResNet in residual steps from the mean latent (ReStyle, ICCV 2021).

Every step reads the image and the generator's image of the present latents, and adds a change to
those latents. The latents of the first step are the mean of w.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_CHANNELS = 16  # per group of GroupNorm, which treats every image by itself
LAST = 4  # height and width of the last feature map, which is flattened to keep positions
SLOPE = 0.2  # slope of the leaky ReLU below 0


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder. Raises ValueError."""

    height: int  # height of the input images, pixels
    width: int
    num_ws: int  # rows of w+ in the output
    w_dim: int
    channels: tuple[int, ...] = (
        32,
        64,
        128,
        256,
        256,
    )  # after the stem and each halving block
    hidden: int = 512  # width of the layer before the output
    iterations: int = 3  # residual steps

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or any(c < 1 or c % GROUP_CHANNELS for c in self.channels):
            raise ValueError(
                f"channels are {list(self.channels)}; there must be two or more, all multiples "
                f"of {GROUP_CHANNELS}"
            )


def encoder_channels(extent: int) -> tuple[int, ...]:
    """Channels for images of `extent` pixels: 32, doubling up to 256, halving the extent down to 4.

    Example: extent 64 is halved four times: (32, 64, 128, 256, 256).
    """
    channels = [32]
    while extent > LAST:
        channels.append(min(2 * channels[-1], 256))
        extent = (extent + 1) // 2
    return (*channels, channels[-1]) if len(channels) == 1 else tuple(channels)


class HalvingBlock(nn.Module):
    """Residual block that halves the extent: two convolutions, and 2x2 means as the skip path."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(in_channels // GROUP_CHANNELS, in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(out_channels // GROUP_CHANNELS, out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, in, h, w] -> [N, out, h/2, w/2], rounded up
        halved: Tensor = self.skip(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))
        x = self.conv0(F.leaky_relu(self.norm0(x), SLOPE))
        x = self.conv1(F.leaky_relu(self.norm1(x), SLOPE))
        return halved + x


class Encoder(nn.Module):
    """One residual step: image, its present reconstruction and latents -> the next latents."""

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
        self.norm = nn.GroupNorm(last // GROUP_CHANNELS, last)
        self.linear0 = nn.Linear(last * LAST * LAST, config.hidden)
        self.linear1 = nn.Linear(config.hidden, config.num_ws * config.w_dim)
        nn.init.zeros_(self.linear1.bias)
        # Mean and standard deviation of w: the start, and the unit of changes. Set before training.
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.register_buffer("w_std", torch.ones(config.w_dim))

    def forward(
        self,
        image: Tensor,  # [N, 3, height, width] in [0, 1]
        shown: Tensor,  # [N, 3, height, width], the generator's image of `ws`, nominally in [0, 1]
        ws: Tensor,  # [N or 1, num_ws, w_dim]
    ) -> Tensor:
        """The next latents [N, num_ws, w_dim]. Raises ValueError for images of another shape."""
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
        """Latents that the first step starts from: w_avg in all rows, [count, num_ws, w_dim]."""
        return self.w_avg.expand(count, self.config.num_ws, -1)
