"""StyleGAN2 synthesis as it is served: eager weights in, a graph of plain operators out.

The same function as `nets.stylegan2.SynthesisNetwork`, rearranged so that every convolution has
constant weights: styles scale activations, up-convolutions take their low-pass into the kernel,
noise and activation gains are constants.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.stylegan2 import FullyConnectedLayer, SynthesisLayer, SynthesisNetwork, ToRGBLayer


def upconv_kernel(weight: Tensor, fir: Tensor) -> Tensor:
    """weight [O, I, 3, 3] and fir [4, 4] -> [I, O, 6, 6] for a transposed convolution of stride 2
    and padding 2, which equals the 3x3 transposed convolution followed by the FIR with gain 4."""
    o, i, k, _ = weight.shape
    # Full convolution of the two kernels: correlation with the flipped FIR, in float64.
    flipped = (fir.double() * 4).flip((0, 1))[None, None]
    fused = F.conv2d(weight.double().reshape(o * i, 1, k, k), flipped, padding=3)
    return fused.reshape(o, i, 6, 6).transpose(0, 1).contiguous().to(weight.dtype)


class Affine(nn.Module):
    """w [N, w_dim] -> styles [N, I], with the run-time gains multiplied into the weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: FullyConnectedLayer, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", (layer.weight.detach() * (layer.weight_gain * gain)).t())
        self.register_buffer("bias", layer.bias.detach() * (layer.bias_gain * gain))

    def forward(self, w: Tensor) -> Tensor:
        return torch.addmm(self.bias, w, self.weight)


class ServedLayer(nn.Module):
    """x [N, I, r, r] -> [N, O, r, r] or twice the extent: conv, demodulation, noise, activation.

    The gain sqrt(2) of the activation is multiplied into what precedes it (leaky ReLU is
    homogeneous). In half precision weights and styles are first divided by their largest values,
    so that no partial sum overflows; the demodulation, in float32, multiplies them back.
    """

    weight: Tensor
    squared: Tensor
    rescale: Tensor
    bias: Tensor
    noise: Tensor | None

    def __init__(self, layer: SynthesisLayer, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.weight.detach()
        gain = math.sqrt(2)
        self.up = layer.up
        self.in_half = dtype == torch.float16
        self.limit = None if layer.conv_clamp is None else layer.conv_clamp * gain
        self.affine = Affine(layer.affine)
        # Demodulation uses the 3x3 weights, also where the kernel is 6x6.
        self.register_buffer("squared", weight.square().sum(dim=(2, 3)).t().contiguous())  # [I, O]
        rescale = torch.full((weight.shape[0],), gain)
        if self.in_half:
            largest = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12)
            largest = largest * math.sqrt(weight[0].numel())
            weight = weight / largest[:, None, None, None]
            rescale = rescale * largest
        self.register_buffer("rescale", rescale)
        kernel = upconv_kernel(weight, layer.resample_filter) if self.up else weight
        self.register_buffer("weight", kernel.to(dtype))
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
        y = x * styles.to(x.dtype)[:, :, None, None]
        if self.up:
            y = F.conv_transpose2d(y, self.weight, stride=2, padding=2)
        else:
            y = F.conv2d(y, self.weight, padding=1)
        y = y * scale.to(y.dtype)[:, :, None, None]
        if self.noise is not None:
            y = y + self.noise
        y = F.leaky_relu(y + self.bias, 0.2)
        return y if self.limit is None else y.clamp(-self.limit, self.limit)


class ServedToRGB(nn.Module):
    """x [N, I, r, r] -> float32 [N, 3, r, r]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ToRGBLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_half = dtype == torch.float16
        self.limit = layer.conv_clamp
        self.affine = Affine(layer.affine, layer.weight_gain)
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


class ServedSynthesis(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, R, R] and the taps that vary.

    Taps are the styled convolutions [N, C, r, r], ascending; the learned constant is left out,
    because it is the same for every image (`const` holds it).
    """

    const: Tensor
    rgb_kernel: Tensor

    def __init__(self, network: SynthesisNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        blocks = network.blocks()
        self.num_ws, self.w_dim = network.config.num_ws, network.config.w_dim
        self.register_buffer("const", blocks[0].const.detach()[None].to(dtype))
        self.layers = nn.ModuleList()
        self.torgbs = nn.ModuleList()
        for block in blocks:
            if not block.is_first:
                self.layers.append(ServedLayer(block.conv0, dtype))
            self.layers.append(ServedLayer(block.conv1, dtype))
            self.torgbs.append(ServedToRGB(block.torgb, dtype))
        fir = blocks[0].resample_filter * 4  # zero insertion keeps a quarter of the samples
        channels = network.config.img_channels
        # A transposed convolution spreads samples with the kernel as it stands, as does
        # filtering the zero-inserted image.
        self.register_buffer("rgb_kernel", fir[None, None].repeat(channels, 1, 1, 1))

    def forward(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows = ws.unbind(dim=1)
        # The batch extent enters through ws: the constant itself has none.
        x = self.layers[0](self.const, rows[0])
        taps = [x]
        image: Tensor = self.torgbs[0](x, rows[1])
        for i in range(1, len(self.torgbs)):
            for j in (2 * i - 1, 2 * i):
                x = self.layers[j](x, rows[j])
                taps.append(x)
            rgb = self.torgbs[i](x, rows[2 * i + 1])
            image = rgb + F.conv_transpose2d(
                image, self.rgb_kernel, stride=2, padding=1, groups=self.rgb_kernel.shape[0]
            )
        return image, taps
