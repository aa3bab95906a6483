"""StyleGAN2 synthesis for export: eager weights in, a module of ONNX and TensorRT operators out.

Computes the same function as `nets.stylegan2.SynthesisNetwork`, in all architectures, with constant
weights in every convolution: styles scale the activations, and noise and activation gains are
constants.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets import stylegan3
from nets.mapping import FullyConnectedLayer
from nets.stylegan2 import SkipLayer, SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGBLayer


def low_pass(fir: Tensor, channels: int) -> Tensor:
    """fir [k, k] -> weights [channels, 1, k, k] of the convolution that filters every channel.

    Turned by 180 degrees, because runtimes correlate.
    """
    return fir.flip((0, 1))[None, None].repeat(channels, 1, 1, 1)


class Convolution(nn.Module):
    """x [N, I, r, r] -> [N, O, r, r], with weight [O, I, 3, 3]."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


class UpConvolution(nn.Module):
    """x [N, I, r, r] -> [N, O, 2r, 2r]: transposed 3x3 convolution, then the low-pass.

    One 6x6 kernel would do, with four times the multiplications: docs/decisions/0013.
    """

    weight: Tensor
    fir: Tensor

    def __init__(self, weight: Tensor, fir: Tensor, dtype: torch.dtype) -> None:
        """weight [O, I, 3, 3]; fir [4, 4] without the gain of 4 for the inserted zeros."""
        super().__init__()
        self.register_buffer("weight", weight.transpose(0, 1).contiguous().to(dtype))
        self.register_buffer("fir", low_pass(fir * 4, weight.shape[0]).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose2d(x, self.weight, stride=2)  # [N, O, 2r + 1, 2r + 1]
        return F.conv2d(y, self.fir, padding=1, groups=self.fir.shape[0])


class Affine(nn.Module):
    """w [N, w_dim] -> styles [N, I]; the run-time gains are multiplied into the weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: FullyConnectedLayer, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", (layer.weight.detach() * (layer.weight_gain * gain)).t())
        self.register_buffer("bias", layer.bias.detach() * (layer.bias_gain * gain))

    def forward(self, w: Tensor) -> Tensor:
        return torch.addmm(self.bias, w, self.weight)


class ServedLayer(nn.Module):
    """x [N, I, h, w] -> [N, O, h, w] or twice the extent: conv, demodulation, noise, activation.

    The gain of the activation is multiplied into demodulation, noise and bias, because leaky ReLU
    is homogeneous. In float16, weights and styles are divided by their largest values, so that no
    partial sum overflows; the demodulation, in float32, multiplies by those values again.
    """

    squared: Tensor
    rescale: Tensor
    bias: Tensor
    noise: Tensor | None

    def __init__(self, layer: SynthesisLayer, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.weight.detach()
        gain = math.sqrt(2) * layer.gain
        self.in_half = dtype == torch.float16
        self.limit = None if layer.conv_clamp is None else layer.conv_clamp * layer.gain
        self.affine = Affine(layer.affine)
        self.register_buffer("squared", weight.square().sum(dim=(2, 3)).t().contiguous())  # [I, O]
        rescale = torch.full((weight.shape[0],), gain)
        if self.in_half:
            largest = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12)
            largest = largest * math.sqrt(weight[0].numel())
            weight = weight / largest[:, None, None, None]
            rescale = rescale * largest
        self.register_buffer("rescale", rescale)
        self.conv: nn.Module = Convolution(weight, dtype)
        if layer.up:
            self.conv = UpConvolution(weight, layer.resample_filter, dtype)
        self.register_buffer("bias", (layer.bias.detach() * gain).to(dtype)[None, :, None, None])
        strength = float(layer.noise_strength.detach())
        noise = (layer.noise_const * (strength * gain)).to(dtype)[None, None]
        self.register_buffer("noise", noise if strength != 0 else None)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)  # float32 [N, I]
        scale = torch.rsqrt(torch.matmul(styles * styles, self.squared) + 1e-8) * self.rescale
        if self.in_half:
            largest = styles.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
            styles = styles / largest
            scale = scale * largest
        y: Tensor = self.conv(x * styles.to(x.dtype)[:, :, None, None])
        y = y * scale.to(y.dtype)[:, :, None, None]
        if self.noise is not None:
            y = y + self.noise
        y = F.leaky_relu(y + self.bias, 0.2)
        return y if self.limit is None else y.clamp(-self.limit, self.limit)


class ServedToRGB(nn.Module):
    """Modulated 1x1 convolution, x [N, I, h, w] -> float32 [N, 3, h, w]."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, layer: ToRGBLayer | stylegan3.ToRGBLayer, dtype: torch.dtype, input_gain: float = 1.0
    ) -> None:
        super().__init__()
        self.in_half = dtype == torch.float16
        self.limit = layer.conv_clamp
        self.affine = Affine(layer.affine, layer.weight_gain * input_gain)
        self.register_buffer("weight", layer.weight.detach().to(dtype))
        self.register_buffer("bias", layer.bias.detach()[None, :, None, None])

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)
        if self.in_half:
            largest = styles.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
            y = F.conv2d(x * (styles / largest).half()[:, :, None, None], self.weight)
            y = y.float() * largest[:, :, None, None]
        else:
            y = F.conv2d(x * styles[:, :, None, None], self.weight)
        y = y + self.bias
        return y if self.limit is None else y.clamp(-self.limit, self.limit)


def doubled(x: Tensor, kernel: Tensor) -> Tensor:
    """x [N, C, h, w] -> [N, C, 2h, 2w]; kernel [C, 1, 4, 4] of `doubling_kernel`.

    Same as `nets.ops.upsample_2x`: a transposed convolution inserts the zeros and filters.
    """
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=kernel.shape[0])


def doubling_kernel(fir: Tensor, channels: int) -> Tensor:
    """fir [4, 4] -> [channels, 1, 4, 4], times 4: three of four samples are inserted zeros."""
    return (fir * 4)[None, None].repeat(channels, 1, 1, 1)


class ServedSkip(nn.Module):
    """Residual path of a block, x [N, I, h, w] -> [N, O, 2h, 2w]."""

    weight: Tensor
    kernel: Tensor

    def __init__(self, layer: SkipLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", (layer.weight.detach() * layer.weight_gain).to(dtype))
        kernel = doubling_kernel(layer.resample_filter, layer.weight.shape[0])
        self.register_buffer("kernel", kernel.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return doubled(F.conv2d(x, self.weight), self.kernel)


class ServedBlock(nn.Module):
    """One resolution; the same function as `nets.stylegan2.SynthesisBlock`."""

    rgb_kernel: Tensor

    def __init__(self, block: SynthesisBlock, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        layers = [block.conv1] if block.is_first else [block.conv0, block.conv1]
        self.layers = nn.ModuleList(ServedLayer(layer, dtype) for layer in layers)
        self.torgb = ServedToRGB(block.torgb, dtype) if block.has_torgb else None
        self.skip = ServedSkip(block.skip, dtype) if block.is_residual else None
        self.register_buffer("rgb_kernel", doubling_kernel(block.resample_filter, channels))

    def forward(
        self,
        x: Tensor,
        image: Tensor | None,
        rows: list[Tensor],  # rows of w+ [N, w_dim]: one per layer, then one for ToRGB
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        residual = None if self.skip is None else self.skip(x)
        taps: list[Tensor] = []
        for layer, row in zip(self.layers, rows, strict=False):
            x = layer(x, row)
            taps.append(x)
        if residual is not None:
            x = residual + x
        if image is not None:
            image = doubled(image, self.rgb_kernel)
        if self.torgb is not None:
            rgb = self.torgb(x, rows[-1])
            image = rgb if image is None else rgb + image
        return x, image, taps


class ServedSynthesis(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, H, W] and taps.

    Taps are the outputs of the styled convolutions [N, C, h, w], ascending. The learned constant
    (`const`) is not among them, because it is the same for every image.
    """

    const: Tensor

    def __init__(self, network: SynthesisNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_ws, self.w_dim = network.config.num_ws, network.config.w_dim
        channels = network.config.img_channels
        blocks = network.blocks()
        self.register_buffer("const", blocks[0].const.detach()[None].to(dtype))
        self.blocks = nn.ModuleList(ServedBlock(block, channels, dtype) for block in blocks)

    def forward(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows = list(ws.unbind(dim=1))
        # `const` has batch size 1; the styles of ws broadcast it to N.
        x, image, taps = self.blocks[0](self.const, None, rows[:2])
        for i, block in enumerate(self.blocks):
            if i > 0:
                x, image, block_taps = block(x, image, rows[2 * i - 1 : 2 * i + 2])
                taps += block_taps
        assert image is not None
        return image, taps
