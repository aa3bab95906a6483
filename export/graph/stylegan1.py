"""StyleGAN1 synthesis for export: eager weights in, a module of ONNX and TensorRT operators out.

Computes the same function as `nets.stylegan1.SynthesisNetwork`. Both ways of doubling become a
transposed convolution; their kernels differ by a turn of 180 degrees. The low-pass remains a
separate convolution, because folding it into the kernel would change the outermost pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph.stylegan2 import Affine, low_pass
from nets.stylegan1 import (
    NORM_EPS,
    DoublingConv,
    Epilogue,
    EqualizedConv,
    SynthesisBlock,
    SynthesisNetwork,
    spread_kernel,
)


class ServedEpilogue(nn.Module):
    """x [N, C, r, r] -> same shape: noise, leaky ReLU, adaptive instance normalization.

    Statistics and styles are float32 at both precisions.
    """

    noise: Tensor
    strength: Tensor
    ones: Tensor
    zeros: Tensor

    def __init__(self, epilogue: Epilogue, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.affine = Affine(epilogue.affine)
        strength = epilogue.noise_strength.detach()
        self.silent = not bool(strength.any())
        self.register_buffer("noise", epilogue.noise_const[None, None].to(dtype))
        self.register_buffer("strength", strength[None, :, None, None].to(dtype))
        self.register_buffer("ones", torch.ones(len(strength)))
        self.register_buffer("zeros", torch.zeros(len(strength)))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        if not self.silent:
            x = x + self.strength * self.noise
        x = F.leaky_relu(x, 0.2).float()
        # Not F.instance_norm: its check of the shape would be traced into the graph.
        x = torch.instance_norm(x, self.ones, self.zeros, None, None, True, 0.0, NORM_EPS, False)
        x = x * (scale + 1) + shift
        return x.to(self.dtype)


class ServedConv(nn.Module):
    """Convolution, x [N, I, r, r] -> [N, O, r, r], with the gain multiplied into the weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: EqualizedConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.padding = conv.weight.shape[-1] // 2
        self.register_buffer("weight", (conv.weight.detach() * conv.weight_gain).to(dtype))
        self.register_buffer("bias", conv.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class ServedDoubling(nn.Module):
    """Doubling convolution and low-pass, x [N, I, r, r] -> [N, O, 2r, 2r].

    The doubling convolution is a transposed 4x4 convolution, or a 3x3 one and sums over 2x2 pixels:
    9 multiplications instead of 16, and another intermediate image. The former suits GPUs, the
    latter CPUs (docs/decisions/0013): the half graph is for GPUs.
    """

    weight: Tensor
    sums: Tensor | None
    blur: Tensor
    bias: Tensor

    def __init__(self, conv: DoublingConv, dtype: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.detach() * conv.weight_gain
        weight = weight if conv.fused else weight.flip((2, 3))
        channels = weight.shape[0]
        spread = dtype == torch.float16
        kernel = spread_kernel(weight) if spread else weight.transpose(0, 1).contiguous()
        self.register_buffer("weight", kernel.to(dtype))
        sums = None if spread else torch.ones(channels, 1, 2, 2, dtype=dtype)
        self.register_buffer("sums", sums)
        self.register_buffer("blur", low_pass(conv.blur_kernel, channels).to(dtype))
        self.register_buffer("bias", conv.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        channels = self.blur.shape[0]
        if self.sums is None:
            x = F.conv_transpose2d(x, self.weight, stride=2, padding=1)
        else:
            x = F.conv_transpose2d(x, self.weight, stride=2)  # [N, O, 2r + 1, 2r + 1]
            x = F.conv2d(x, self.sums, groups=channels)
        return F.conv2d(x, self.blur, self.bias, padding=1, groups=channels)


class ServedBlock(nn.Module):
    """One resolution; the same function as `nets.stylegan1.SynthesisBlock`."""

    const: Tensor | None

    def __init__(self, block: SynthesisBlock, dtype: torch.dtype) -> None:
        super().__init__()
        const = None
        self.conv0 = None
        if block.is_first:
            const = (block.const + block.bias[:, None, None]).detach()[None].to(dtype)
        else:
            self.conv0 = ServedDoubling(block.conv0, dtype)
        self.register_buffer("const", const)
        self.epilogue0 = ServedEpilogue(block.epilogue0, dtype)
        self.conv1 = ServedConv(block.conv1, dtype)
        self.epilogue1 = ServedEpilogue(block.epilogue1, dtype)

    def forward(self, x: Tensor | None, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        y = self.const if self.conv0 is None else self.conv0(x)
        raw: Tensor = self.conv1(self.epilogue0(y, first))
        return self.epilogue1(raw, second), raw


class ServedStyleGAN1(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, R, R] and all taps, ascending.

    Each block has two taps: its output, then its second convolution before the epilogue.
    """

    def __init__(self, network: SynthesisNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_ws, self.w_dim = network.config.num_ws, network.config.w_dim
        self.blocks = nn.ModuleList(ServedBlock(block, dtype) for block in network.blocks())
        self.torgb = ServedConv(network.torgb, torch.float32)

    def forward(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows = ws.unbind(dim=1)
        x: Tensor | None = None
        taps: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, raw = block(x, rows[2 * i], rows[2 * i + 1])
            taps += [x, raw]
        assert x is not None
        return self.torgb(x.float()), taps
