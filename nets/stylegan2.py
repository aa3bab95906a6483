"""StyleGAN2 generator (Karras et al., CVPR 2020), skip architecture.

Read bottom-up: layer, block, network, generator. Parameter and buffer names are
those of the official PyTorch release, so that its weights load by name.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets.ops import (
    modulated_conv2d,
    normalize_second_moment,
    resample_kernel,
    scaled_leaky_relu,
    upsample_2x,
)


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator; everything that fixes the parameters' extents."""

    resolution: int  # image extent in pixels, a power of two of at least 8
    channels: tuple[int, ...]  # feature channels at 4, 8, ..., resolution
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0  # classes of a conditional generator, 0: unconditional
    mapping_layers: int = 8
    img_channels: int = 3
    conv_clamp: float | None = None  # activations are clamped to +-this times the gain

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(
                f"resolution is {self.resolution}; it must be a power of two of at least 8"
            )
        if len(self.channels) != len(self.resolutions):
            raise ValueError(
                f"channels has {len(self.channels)} entries; resolution {self.resolution} "
                f"needs {len(self.resolutions)}, one for each of {self.resolutions}"
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def num_ws(self) -> int:
        """Rows of w+: one per convolution and one for the last ToRGB."""
        return 2 * len(self.resolutions)


def channels_from_base(
    resolution: int, channel_base: int, channel_max: int = 512
) -> tuple[int, ...]:
    """The official channel table, min(channel_base / r, channel_max), for 4 ... resolution."""
    return tuple(
        min(channel_base // 2**i, channel_max) for i in range(2, int(math.log2(resolution)) + 1)
    )


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate: parameters are scaled at run time."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: bool = False,  # scaled leaky ReLU after the bias
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:  # [N, in] -> [N, out]
        x = torch.addmm(self.bias * self.bias_gain, x, (self.weight * self.weight_gain).t())
        return scaled_leaky_relu(x) if self.activation else x


class MappingNetwork(nn.Module):
    """z [N, z_dim], with c one-hot [N, c_dim] where conditional -> w [N, w_dim], untruncated."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.config = config
        features = config.z_dim
        if config.c_dim > 0:
            self.embed = FullyConnectedLayer(config.c_dim, config.w_dim)
            features += config.w_dim
        for i in range(config.mapping_layers):
            layer = FullyConnectedLayer(
                features, config.w_dim, activation=True, lr_multiplier=lr_multiplier
            )
            setattr(self, f"fc{i}", layer)
            features = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x = normalize_second_moment(z)
        if self.config.c_dim > 0:
            if c is None:
                raise ValueError("this generator is class-conditional: c [N, c_dim] is required")
            x = torch.cat([x, normalize_second_moment(self.embed(c))], dim=1)
        for i in range(self.config.mapping_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


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
        up: bool,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.conv_clamp = config.conv_clamp
        self.affine = FullyConnectedLayer(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", resample_kernel())

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            up_kernel=self.resample_filter if self.up else None,
        )
        noise = self.noise_const if noise is None else noise  # [r, r] or [N, 1, r, r]
        x = x + noise.to(x.dtype) * self.noise_strength.to(x.dtype)
        x = scaled_leaky_relu(x + self.bias.to(x.dtype)[None, :, None, None])
        if self.conv_clamp is not None:
            limit = self.conv_clamp * math.sqrt(2)
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


class SynthesisBlock(nn.Module):
    """One resolution: doubling convolution (except at 4), convolution, ToRGB onto the skip."""

    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, config: GeneratorConfig, resolution: int
    ) -> None:
        super().__init__()
        self.is_first = resolution == 4
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, config, resolution, up=True)
        self.conv1 = SynthesisLayer(out_channels, out_channels, config, resolution, up=False)
        self.torgb = ToRGBLayer(out_channels, config)
        self.num_conv = 1 if self.is_first else 2
        self.register_buffer("resample_filter", resample_kernel())

    def forward(
        self,
        x: Tensor | None,  # [N, in, r/2, r/2], None for the first block
        image: Tensor | None,  # [N, 3, r/2, r/2], None for the first block
        ws: Tensor,  # [N, num_conv + 1, w_dim], the last row is ToRGB's
        noise: list[Tensor | None],  # one per convolution
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        taps: list[Tensor] = []
        if x is None:
            x = self.const[None].expand(ws.shape[0], -1, -1, -1)
            taps.append(x)
        else:
            x = self.conv0(x, ws[:, 0], noise[0])
            taps.append(x)
        x = self.conv1(x, ws[:, self.num_conv - 1], noise[-1])
        taps.append(x)
        rgb = self.torgb(x, ws[:, self.num_conv]).float()
        image = rgb if image is None else upsample_2x(image, self.resample_filter) + rgb
        return x, image, taps


@dataclass(frozen=True)
class Synthesis:
    """What one synthesis pass gives."""

    image: Tensor  # float32 [N, 3, R, R], nominally in [-1, 1], not clamped
    taps: list[Tensor]  # learned constant, then every styled convolution, ascending


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> image and feature taps.

    Each block's ToRGB shares its row with the next block's first convolution.
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
        """`noise`: one tensor per convolution, [r, r] or [N, 1, r, r]; None: the buffers."""
        num_ws, w_dim = self.config.num_ws, self.config.w_dim
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (num_ws, w_dim):
            raise ValueError(f"ws has shape {tuple(ws.shape)}; expected [N, {num_ws}, {w_dim}]")
        injected: list[Tensor | None] = list(noise) if noise is not None else [None] * (num_ws - 1)
        if len(injected) != num_ws - 1:
            raise ValueError(f"noise has {len(injected)} tensors; expected {num_ws - 1}")
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
    """Mapping and synthesis; forward is the whole path from z at a given truncation."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """z [N, z_dim] -> image float32 [N, 3, R, R]."""
        w = self.mapping(z, c)
        w = self.mapping.w_avg + truncation_psi * (w - self.mapping.w_avg)
        image: Tensor = self.synthesis(w[:, None].expand(-1, self.config.num_ws, -1)).image
        return image
