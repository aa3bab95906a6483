"""The few operations StyleGAN2 is made of, from their formulas (Karras et al., CVPR 2020).

Tensors in, tensors out; nothing here owns parameters.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# [1, 3, 3, 1] is the binomial low-pass of the paper's up- and downsampling.
RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


def resample_kernel(gain: float = 1.0) -> Tensor:
    """The separable FIR as one float32 [4, 4] kernel that sums to `gain`."""
    taps = torch.tensor(RESAMPLE_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def normalize_second_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scales each row of x [N, C] to a mean square of one."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2 with gain sqrt(2), which keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def demodulation(weight: Tensor, styles: Tensor, eps: float = 1e-8) -> Tensor:
    """Per-sample, per-output factor 1 / ||W * s||.

    weight [O, I, k, k] and styles [N, I] give [N, O]. The sum over the kernel does
    not depend on the sample, so the norm is one matmul with sum_k W^2.
    """
    squared = weight.square().sum(dim=(2, 3))  # [O, I]
    return (styles.square() @ squared.t() + eps).rsqrt()


def blur(x: Tensor, kernel: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Filters every channel of x [N, C, H, W] with kernel [kh, kw] after zero padding."""
    channels = x.shape[1]
    # Convolution, not correlation: the kernel is flipped (it is symmetric by default).
    taps = kernel.to(x.dtype).flip((0, 1))[None, None].expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(x, padding), taps, groups=channels)


def upsample_2x(x: Tensor, kernel: Tensor) -> Tensor:
    """Doubles x [N, C, H, W] by zero insertion and the FIR (gain 4 keeps the mean)."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, h * 2, w * 2)
    return blur(x, kernel * 4, (2, 1, 2, 1))


def modulated_conv2d(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    styles: Tensor,  # [N, I]
    *,
    demodulate: bool = True,
    up_kernel: Tensor | None = None,  # FIR [4, 4]: doubles the resolution
) -> Tensor:
    """Convolution with per-sample weights W * s, normalized per output (section 2.2).

    Scaling the input channels and the output channels equals scaling the weights,
    and spares one set of weights per sample. Returns [N, O, H, W], or twice the
    extent with `up_kernel`.
    """
    y = x * styles[:, :, None, None]
    if up_kernel is None:
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
    else:
        y = F.conv_transpose2d(y, weight.transpose(0, 1), stride=2)  # [N, O, 2H+1, 2W+1]
        y = blur(y, up_kernel * 4, (1, 1, 1, 1))
    if demodulate:
        y = y * demodulation(weight, styles)[:, :, None, None]
    return y
