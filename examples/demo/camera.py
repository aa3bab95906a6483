"""The demo's second look: the scene as a cheap camera in a warm room would record it.

Images enter, photographs of them leave, with every edge in place: a color cast, light from one
side, a mottled surface, a soft lens and a noisy sensor. Photographs stand for the real domain.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CameraLook:
    """Strength of each effect. Colors are in [0, 1]; spreads are standard deviations between
    photographs."""

    cast: tuple[float, float, float] = (1.0, 0.80, 0.52)  # gain of each channel
    cast_spread: float = 0.04
    exposure: float = 0.85
    exposure_spread: float = 0.06
    light: float = 0.25  # gain at the brighter edge minus 1; the darker edge loses as much
    mottle: float = 0.08  # contrast of a surface texture of grains two pixels wide
    blur_px: float = 0.8  # sigma of the lens's Gaussian blur
    noise: float = 0.05  # standard deviation at full light; the variance is proportional to light


def photographed(images: Tensor, seed: int, camera: CameraLook | None = None) -> Tensor:
    """uint8 [n, 3, H, W] -> uint8 [n, 3, H, W]; the seed and i decide the photograph of image i."""
    camera = camera or CameraLook()
    rng = torch.Generator().manual_seed(seed)
    pictures = [_photographed(image / 255, camera, rng) for image in images]
    return (torch.stack(pictures) * 255).clamp(0, 255).round().byte()


def _photographed(scene: Tensor, camera: CameraLook, rng: torch.Generator) -> Tensor:
    """float32 [3, H, W] in [0, 1] -> the same, not yet clipped."""
    _, height, width = scene.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    cast = torch.tensor(camera.cast) * (camera.cast_spread * normal(3)).exp()
    exposure = camera.exposure * (camera.exposure_spread * normal(1)).exp()
    angle = 2 * math.pi * torch.rand(1, generator=rng)
    x, y = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)[:, None]
    light = 1 + camera.light * (x * angle.cos() + y * angle.sin())
    mottle = _blurred(normal(1, height, width), 1.0) * math.sqrt(4 * math.pi)  # back to variance 1
    lit = scene * cast[:, None, None] * exposure * light * (1 + camera.mottle * mottle)
    seen = _blurred(lit, camera.blur_px)
    return seen + camera.noise * seen.clamp(0.05, 1).sqrt() * normal(3, height, width)


def _blurred(image: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of [C, H, W]; border pixels are repeated."""
    radius = math.ceil(3 * sigma_px)
    offsets = torch.arange(-radius, radius + 1)
    taps = (offsets.square() / (-2 * sigma_px**2)).softmax(dim=0)
    padded = F.pad(image[None], [radius] * 4, mode="replicate")[0][:, None]
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[:, 0]
