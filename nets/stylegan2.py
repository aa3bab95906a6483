"""StyleGAN2 generator (Karras et al., CVPR 2020), all three architectures.

Read bottom-up: layer, block, network, generator. Parameter and buffer names are
those of the official PyTorch release, so that its weights load by name.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.config import GeneratorConfig, Synthesis, channels_from_base, check_inputs, size_at
from nets.mapping import FullyConnectedLayer, MappingNetwork
from nets.ops import modulated_conv2d, resample_kernel, scaled_leaky_relu, upsample_2x

__all__ = [
    "FullyConnectedLayer",
    "Generator",
    "GeneratorConfig",
    "MappingNetwork",
    "Synthesis",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGBLayer",
    "channels_from_base",
]


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: GeneratorConfig,
        resolution: int,
        *,
        up: bool,
        gain: float = 1.0,  # multiplies the activation and the clamp
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.gain = gain
        self.conv_clamp = config.conv_clamp
        self.affine = FullyConnectedLayer(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(size_at(resolution, config.start)))
        self.register_buffer("resample_filter", resample_kernel())

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            up_kernel=self.resample_filter if self.up else None,
        )
        noise = self.noise_const if noise is None else noise  # [h, w] or [N, 1, h, w]
        x = x + noise.to(x.dtype) * self.noise_strength.to(x.dtype)
        x = scaled_leaky_relu(x + self.bias.to(x.dtype)[None, :, None, None]) * self.gain
        if self.conv_clamp is not None:
            limit = self.conv_clamp * self.gain
            x = x.clamp(-limit, limit)
        return x


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, in_channels: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.conv_clamp = config.conv_clamp
        self.affine = FullyConnectedLayer(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        x = x + self.bias.to(x.dtype)[None, :, None, None]
        if self.conv_clamp is not None:
            x = x.clamp(-self.conv_clamp, self.conv_clamp)
        return x


class SkipLayer(nn.Module):
    """Residual path of a block: 1x1 convolution without bias, then doubling."""

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.weight_gain = gain / math.sqrt(in_channels)
        self.register_buffer("resample_filter", resample_kernel())

    def forward(self, x: Tensor) -> Tensor:  # [N, in, h/2, w/2] -> [N, out, h, w]
        x = F.conv2d(x, (self.weight * self.weight_gain).to(x.dtype))
        return upsample_2x(x, self.resample_filter)


class SynthesisBlock(nn.Module):
    """One extent: doubling convolution (except in the first), convolution, ToRGB.

    skip: every block adds its ToRGB to the doubled image of the block before. resnet: block
    inputs are added to block outputs, both scaled by sqrt(1/2). orig: neither. With resnet and orig
    only the last block has a ToRGB.
    """

    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, config: GeneratorConfig, resolution: int
    ) -> None:
        super().__init__()
        self.is_first = resolution == 4
        self.is_residual = config.architecture == "resnet" and not self.is_first
        self.has_torgb = config.architecture == "skip" or resolution == config.resolution
        gain = math.sqrt(0.5) if self.is_residual else 1.0
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, *config.start))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, config, resolution, up=True)
        self.conv1 = SynthesisLayer(
            out_channels, out_channels, config, resolution, up=False, gain=gain
        )
        if self.has_torgb:
            self.torgb = ToRGBLayer(out_channels, config)
        if self.is_residual:
            self.skip = SkipLayer(in_channels, out_channels, gain)
        self.num_conv = 1 if self.is_first else 2
        self.register_buffer("resample_filter", resample_kernel())

    def forward(
        self,
        x: Tensor | None,  # [N, in, h/2, w/2], None for the first block
        image: Tensor | None,  # [N, 3, h/2, w/2], None before the first ToRGB
        ws: Tensor,  # [N, num_conv + 1, w_dim]; the last row is for ToRGB
        noise: list[Tensor | None],  # one per convolution
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        taps: list[Tensor] = []
        residual = self.skip(x) if self.is_residual else None
        if x is None:
            x = self.const[None].expand(ws.shape[0], -1, -1, -1)
            taps.append(x)
        else:
            x = self.conv0(x, ws[:, 0], noise[0])
            taps.append(x)
        x = self.conv1(x, ws[:, self.num_conv - 1], noise[-1])
        taps.append(x)
        if residual is not None:
            x = residual + x
        if image is not None:
            image = upsample_2x(image, self.resample_filter)
        if self.has_torgb:
            rgb = self.torgb(x, ws[:, self.num_conv]).float()
            image = rgb if image is None else image + rgb
        return x, image, taps


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> image and taps.

    A block's ToRGB and the next block's first convolution read the same row of w+.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        in_channels = 0
        for resolution, out_channels in zip(config.resolutions, config.channels, strict=True):
            setattr(
                self,
                f"b{resolution}",
                SynthesisBlock(in_channels, out_channels, config, resolution),
            )
            in_channels = out_channels

    def blocks(self) -> list[SynthesisBlock]:
        """The blocks in ascending resolution."""
        return [getattr(self, f"b{r}") for r in self.config.resolutions]

    def forward(self, ws: Tensor, noise: list[Tensor] | None = None) -> Synthesis:
        """noise: one tensor per convolution, [h, w] or [N, 1, h, w]; None: noise_const buffers."""
        check_inputs(self.config, ws, noise)
        injected: list[Tensor | None] = [None] * self.config.num_noises
        if noise is not None:
            injected = list(noise)
        x: Tensor | None = None
        image: Tensor | None = None
        taps: list[Tensor] = []
        row = 0
        for block in self.blocks():
            end = row + block.num_conv
            x, image, block_taps = block(x, image, ws[:, row : end + 1], injected[row:end])
            taps += block_taps
            row = end
        assert image is not None
        return Synthesis(image, taps)


class Generator(nn.Module):
    """Mapping and synthesis; `forward` is the path from z to image at a given truncation."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """z [N, z_dim] -> image float32 [N, 3, H, W]."""
        w = self.mapping.truncated(self.mapping(z, c), truncation_psi)
        image: Tensor = self.synthesis(w[:, None].expand(-1, self.config.num_ws, -1)).image
        return image
