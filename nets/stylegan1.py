"""StyleGAN generator (Karras et al., CVPR 2019) as DatasetGAN's release runs it.

Read bottom-up: convolution, epilogue, block, network, generator. The mapping network is that of
StyleGAN2 with biases divided by sqrt(2): StyleGAN2 has the gain in the activation, StyleGAN1 in
the weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.config import GeneratorConfig, Synthesis, check_inputs
from nets.mapping import FullyConnectedLayer, MappingNetwork
from nets.ops import blur

BLUR_TAPS = (1.0, 2.0, 1.0)
FUSED_FROM = 128  # output resolution from which doubling and convolution are one operation
NORM_EPS = 1e-5


def blur_kernel() -> Tensor:
    """The binomial low-pass filter, float32 [3, 3] with sum 1."""
    taps = torch.tensor(BLUR_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def spread_kernel(weight: Tensor) -> Tensor:
    """weight [O, I, 3, 3] -> [I, O, 4, 4], for a transposed convolution of stride 2 and padding 1.

    The kernel is the sum of `weight` at the four positions of a doubled pixel.
    """
    w = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
    return w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]


class EqualizedConv(nn.Module):
    """Convolution whose weights are scaled at run time by gain / sqrt(fan-in)."""

    def __init__(self, in_channels: int, out_channels: int, size: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = gain / math.sqrt(in_channels * size * size)

    def forward(self, x: Tensor) -> Tensor:  # [N, I, H, W] -> [N, O, H, W]
        weight = self.weight * self.weight_gain
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class DoublingConv(nn.Module):
    """x [N, I, r/2, r/2] -> [N, O, r, r]: doubling, 3x3 convolution, low-pass, bias.

    From 128 pixels on, doubling and convolution are one transposed convolution, as in the original
    code. That is another function of the same weights: their kernel is turned by 180 degrees.
    """

    blur_kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, resolution: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = math.sqrt(2) / math.sqrt(in_channels * 9)
        self.fused = resolution >= FUSED_FROM
        self.register_buffer("blur_kernel", blur_kernel())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.weight_gain
        if self.fused:
            x = F.conv_transpose2d(x, spread_kernel(weight), stride=2, padding=1)
        else:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.conv2d(x, weight, padding=1)
        return blur(x, self.blur_kernel, (1, 1, 1, 1)) + self.bias[None, :, None, None]


class Epilogue(nn.Module):
    """Noise, leaky ReLU, then adaptive instance normalization."""

    noise_const: Tensor

    def __init__(self, channels: int, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.affine = FullyConnectedLayer(config.w_dim, 2 * channels)
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        noise = self.noise_const if noise is None else noise  # [r, r] or [N, 1, r, r]
        x = F.leaky_relu(x + self.noise_strength[:, None, None] * noise, 0.2)
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
        y: Tensor = F.instance_norm(x, eps=NORM_EPS) * (scale + 1) + shift
        return y


class SynthesisBlock(nn.Module):
    """One resolution: constant or doubling convolution, epilogue, convolution, epilogue."""

    def __init__(
        self, in_channels: int, out_channels: int, config: GeneratorConfig, resolution: int
    ) -> None:
        super().__init__()
        self.is_first = resolution == 4
        if self.is_first:
            self.const = nn.Parameter(torch.ones(out_channels, 4, 4))
            self.bias = nn.Parameter(torch.ones(out_channels))
        else:
            self.conv0 = DoublingConv(in_channels, out_channels, resolution)
        self.epilogue0 = Epilogue(out_channels, config, resolution)
        self.conv1 = EqualizedConv(out_channels, out_channels, 3, math.sqrt(2))
        self.epilogue1 = Epilogue(out_channels, config, resolution)

    def forward(
        self,
        x: Tensor | None,  # [N, in, r/2, r/2], None for the first block
        ws: Tensor,  # [N, 2, w_dim]
        noise: list[Tensor | None],  # one per epilogue
    ) -> tuple[Tensor, Tensor]:
        """Returns the block's output, and its second convolution before the epilogue."""
        if x is None:
            x = (self.const + self.bias[:, None, None])[None].expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x)
        raw: Tensor = self.conv1(self.epilogue0(x, ws[:, 0], noise[0]))
        return self.epilogue1(raw, ws[:, 1], noise[1]), raw


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> image and taps; each block reads two rows of w+."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        in_channels = 0
        for resolution, out_channels in zip(config.resolutions, config.channels, strict=True):
            block = SynthesisBlock(in_channels, out_channels, config, resolution)
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels
        self.torgb = EqualizedConv(in_channels, config.img_channels, 1, 1.0)

    def blocks(self) -> list[SynthesisBlock]:
        """The blocks in ascending resolution."""
        return [getattr(self, f"b{r}") for r in self.config.resolutions]

    def forward(self, ws: Tensor, noise: list[Tensor] | None = None) -> Synthesis:
        """noise: one tensor per epilogue, [r, r] or [N, 1, r, r]; None: noise_const buffers."""
        check_inputs(self.config, ws, noise)
        injected: list[Tensor | None] = [None] * self.config.num_noises
        if noise is not None:
            injected = list(noise)
        x: Tensor | None = None
        taps: list[Tensor] = []
        for i, block in enumerate(self.blocks()):
            rows = slice(2 * i, 2 * i + 2)
            x, raw = block(x, ws[:, rows], injected[rows])
            taps += [x, raw]
        return Synthesis(self.torgb(x), taps)


class Generator(nn.Module):
    """Mapping and synthesis; `forward` is the path from z to image at a given truncation."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """z [N, z_dim] -> image float32 [N, 3, R, R]; all rows of w+ are truncated."""
        w = self.mapping.truncated(self.mapping(z), truncation_psi)
        image: Tensor = self.synthesis(w[:, None].expand(-1, self.config.num_ws, -1)).image
        return image
