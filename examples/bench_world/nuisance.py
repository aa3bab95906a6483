"""Photographs' nuisance for the bench world's "real" side: light, white balance, lens, noise, JPEG.

A rendered image enters, a photograph of it leaves, with every edge in place, so that the labels
stay exact. The strength of each effect differs between photographs.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from labelmint.latents import Purpose, latents


@dataclass(frozen=True)
class Nuisance:
    """Range or strength of each effect; 0, or 100 for the JPEG quality, turns one off."""

    balance: float = 0.12  # standard deviation of the log gains of red and blue
    exposure: float = 0.15  # of the log exposure
    gamma: float = 0.12  # of the log exponent of the tone curve
    light: float = 0.30  # most gain of one side of the image, and loss of the other
    vignette: float = 0.35  # most loss of light in the corners
    blur_px: tuple[float, float] = (0.3, 1.0)  # sigma of the lens
    noise: tuple[float, float] = (0.01, 0.05)  # standard deviation at full light
    jpeg_quality: tuple[int, int] = (40, 95)


def photographed(
    image: NDArray[np.uint8], seed: int, index: int, nuisance: Nuisance | None = None
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> uint8 [H, W, 3]: a function of image, seed, index and nuisance alone.

    Raises ValueError if the image has another shape, or seed or index is outside 0 to 2**64 - 1.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image is {image.dtype} {image.shape}; it must be uint8 [H, W, 3]")
    look = nuisance or Nuisance()
    # Rows for noise, so that photographs are independent of the scenes of the same seed.
    words = latents(seed, Purpose.NOISE, [index], 2)[0].view(np.uint32)
    rng = np.random.Generator(np.random.Philox(key=words.astype(np.uint64)))
    height, width, _ = image.shape
    gains = np.exp(
        rng.normal(0, 1, 3) * (look.balance, 0, look.balance) + rng.normal(0, look.exposure)
    )
    gamma = math.exp(rng.normal(0, look.gamma))
    angle, light, vignette = rng.uniform(0, (2 * math.pi, look.light, look.vignette))
    blur, noise = rng.uniform(*look.blur_px), rng.uniform(*look.noise)
    quality = int(rng.integers(*look.jpeg_quality, endpoint=True))

    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    falloff = (
        1 + light * (x * math.cos(angle) + y * math.sin(angle)) - 0.5 * vignette * (x**2 + y**2)
    )
    lit = (image / np.float32(255)) ** np.float32(gamma) * gains.astype(np.float32)
    seen = gaussian_filter(lit * falloff[:, :, None], (blur, blur, 0), mode="nearest")
    grain = rng.standard_normal(image.shape, np.float32)
    seen += np.float32(noise) * np.sqrt(np.clip(seen, 0.05, 1)) * grain  # the variance is light's
    return _compressed((np.clip(seen, 0, 1) * 255 + 0.5).astype(np.uint8), quality)


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The image after JPEG of a quality; 100: without JPEG."""
    if quality >= 100:
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as picture:
        return np.array(picture)
