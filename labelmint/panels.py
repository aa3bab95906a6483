"""The panels of a contact sheet: one sample's image or label, drawn at a given size.

Enter: arrays as a `Batch` has them, and an extent (width, height) in pixels. Leave: Pillow
images of that extent. Needs the extra `cli`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelmint.codec import Array

Color = tuple[int, int, int]

HEAT: tuple[Color, ...] = (  # dark to light, evenly spaced
    (0, 0, 4),
    (58, 9, 99),
    (150, 38, 103),
    (221, 81, 58),
    (252, 165, 10),
    (252, 255, 164),
)
RANGE: tuple[Color, ...] = (
    (68, 1, 84),
    (59, 82, 139),
    (33, 145, 140),
    (94, 201, 98),
    (253, 231, 37),
)
_JOINTS: tuple[Color, ...] = (
    (255, 89, 94),
    (255, 202, 58),
    (138, 201, 38),
    (25, 182, 214),
    (106, 127, 255),
    (214, 111, 255),
)
_WIDTH_PX = 192  # of a panel, about: small images grow by a whole factor
_MASK_WEIGHT = 0.6  # of the class colour over the image
_MIN_CONFIDENCE = 0.05  # a keypoint under this is not drawn
_SMOOTH = 3  # lines are drawn so many times larger, then averaged


def extent_from_images(images: Array) -> tuple[int, int]:
    """The (width, height) in pixels at which to draw images, [n, H, W, 3]."""
    height, width = images.shape[1:3]
    panel_width = width * max(1, _WIDTH_PX // width) if width < _WIDTH_PX else _WIDTH_PX
    return panel_width, max(1, round(panel_width * height / width))


def panel_from_image(image: Array, extent: tuple[int, int]) -> Image.Image:
    """uint8 [H, W, 3] at this extent: whole pixels when it grows, averages when it shrinks."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    grows = extent[0] >= picture.width
    return picture.resize(extent, Image.Resampling.NEAREST if grows else Image.Resampling.BOX)


def panel_from_mask(
    mask: Array,
    image: Array,
    palette: npt.NDArray[np.uint8],
    extent: tuple[int, int],
) -> Image.Image:
    """The classes of mask, uint8 [H, W], in their colours over the image, with outlines."""
    under = panel_from_image(image, extent)
    classes = np.asarray(Image.fromarray(mask).resize(extent, Image.Resampling.NEAREST))
    over = Image.blend(under, Image.fromarray(palette[classes]), _MASK_WEIGHT)
    pixels = np.array(over)
    edge = np.zeros(classes.shape, bool)
    edge[1:] |= classes[1:] != classes[:-1]
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    pixels[edge] = pixels[edge] // 2
    return Image.fromarray(pixels)


def panel_from_keypoints(
    keypoints: Array,
    skeleton: Sequence[tuple[int, int]],
    image: Array,
    grid: tuple[int, int],
    extent: tuple[int, int],
) -> Image.Image:
    """Keypoints, float32 [K, 3] in pixels of grid (height, width), and bones over the image."""
    under = panel_from_image(image, extent)
    canvas = Image.blend(under, Image.new("RGB", extent, (24, 24, 28)), 0.35)
    canvas = canvas.resize((extent[0] * _SMOOTH, extent[1] * _SMOOTH), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    points = keypoints[:, :2].astype(np.float64) / (grid[1], grid[0]) * canvas.size
    seen = (keypoints[:, 2] >= _MIN_CONFIDENCE) & np.isfinite(points).all(axis=1)
    for start, end in skeleton:
        if max(start, end) < len(seen) and seen[start] and seen[end]:
            ends = (tuple(points[start].tolist()), tuple(points[end].tolist()))
            draw.line(ends, (245, 245, 245), 2 * _SMOOTH)
    reach = 4 * _SMOOTH
    for number in np.flatnonzero(seen):
        x, y = points[number].tolist()
        box = (x - reach, y - reach, x + reach, y + reach)
        draw.ellipse(box, _JOINTS[number % len(_JOINTS)], (16, 16, 20), _SMOOTH)
    return canvas.resize(extent, Image.Resampling.BOX)


def panel_from_values(
    values: Array,
    low: float,
    high: float,
    scale: Sequence[Color],
    extent: tuple[int, int],
) -> Image.Image:
    """Numbers [H, W] from low to high in the colours of a scale; not finite ones are grey."""
    finite = np.isfinite(values)
    shade = (np.where(finite, values, low).astype(np.float64) - low) / max(high - low, 1e-12)
    place = np.clip(shade, 0, 1)
    anchors = np.linspace(0, 1, len(scale))
    channels = [np.interp(place, anchors, channel) for channel in zip(*scale, strict=True)]
    pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    pixels[~finite] = 128
    return panel_from_image(pixels, extent)


def panel_from_depth(depth: Array, low: float, high: float, extent: tuple[int, int]) -> Image.Image:
    """Depth [H, W] from low to high, dark to light; not finite ones are grey.

    Colours follow the inverse of positive depths, so that a wall far behind leaves most of them to
    what is before it.
    """
    if low <= 0:
        return panel_from_values(depth, low, high, RANGE, extent)
    known = np.where(np.isfinite(depth), depth.astype(np.float64), np.nan)
    return panel_from_values(-1 / np.maximum(known, low), -1 / low, -1 / high, RANGE, extent)
