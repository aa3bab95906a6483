"""Panels of a contact sheet: pictures of one sample's image or label.

Enter: arrays of a `Batch`, and a size (height, width) in pixels. Leave: Pillow images of that size.
Needs the extra `cli`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelmint.codec import Array

Color = tuple[int, int, int]

HEAT: tuple[Color, ...] = (  # evenly spaced, dark to light; for uncertainty
    (0, 0, 4),
    (58, 9, 99),
    (150, 38, 103),
    (221, 81, 58),
    (252, 165, 10),
    (252, 255, 164),
)
RANGE: tuple[Color, ...] = (  # for depth
    (68, 1, 84),
    (59, 82, 139),
    (33, 145, 140),
    (94, 201, 98),
    (253, 231, 37),
)
JOINTS: tuple[Color, ...] = (  # of keypoints, in turns
    (255, 89, 94),
    (255, 202, 58),
    (138, 201, 38),
    (25, 182, 214),
    (106, 127, 255),
    (214, 111, 255),
    (255, 255, 255),
    (255, 140, 20),
    (0, 128, 96),
    (40, 60, 200),
    (255, 170, 200),
    (120, 80, 50),
)
_WIDTH_PX = 192  # of a panel, roughly: small images are enlarged by an integer factor
MAX_HEIGHT_PX = 2 * _WIDTH_PX  # of a panel; taller images, which no generator has, are squeezed
_MAX_REDUCTION = 4  # larger arrays than this times the panel are thinned out before anything else
MAX_KEYPOINTS = 10_000  # that are drawn of a sample
_MASK_WEIGHT = 0.6  # opacity of the class colors over the image
_MIN_CONFIDENCE = 0.05  # of a keypoint that is drawn
_SMOOTH = 3  # lines are drawn 3 times larger, then averaged


def size_from_images(images: Array) -> tuple[int, int]:
    """Size (height, width) in pixels of the panels of images, [n, H, W, 3]."""
    height, width = images.shape[1:3]
    panel_width = width * max(1, _WIDTH_PX // width) if width < _WIDTH_PX else _WIDTH_PX
    panel_height = min(round(panel_width * height / width), MAX_HEIGHT_PX)
    return max(1, panel_height), panel_width


def panel_from_image(image: Array, size: tuple[int, int]) -> Image.Image:
    """An image, uint8 [H, W, 3], enlarged by nearest neighbor or reduced by box averages."""
    picture = Image.fromarray(np.ascontiguousarray(_thinned(image, size)))
    grows = size[1] >= picture.width
    return picture.resize(
        (size[1], size[0]), Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    )


def panel_from_mask(
    mask: Array,
    image: Array,
    palette: npt.NDArray[np.uint8],
    size: tuple[int, int],
) -> Image.Image:
    """A mask, uint8 [H, W], in the colors of its classes over the image, with dark outlines.

    Args:
        mask, image: the sample, uint8 [H, W] and [H, W, 3]; their sizes may differ.
        palette: RGB by class id, uint8 [256, 3].
        size: (height, width) of the panel.
    """
    under = panel_from_image(image, size)
    mask = np.ascontiguousarray(_thinned(mask, size))
    resized = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    classes = np.asarray(resized)
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
    size: tuple[int, int],
) -> Image.Image:
    """Keypoints and bones over the image.

    Args:
        keypoints: float32 [K, 3]: x, y in pixels of the grid, confidence.
        skeleton: bones, as pairs of keypoint numbers.
        image: uint8 [H, W, 3].
        grid: (height, width) that the coordinates refer to.
        size: (height, width) of the panel.
    """
    under = panel_from_image(image, size)
    canvas = Image.blend(under, Image.new("RGB", under.size, (24, 24, 28)), 0.35)
    canvas = canvas.resize((size[1] * _SMOOTH, size[0] * _SMOOTH), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    keypoints = keypoints[:MAX_KEYPOINTS]
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
        draw.ellipse(box, JOINTS[number % len(JOINTS)], (16, 16, 20), _SMOOTH)
    return canvas.resize((size[1], size[0]), Image.Resampling.BOX)


def panel_from_values(
    values: Array,
    low: float,
    high: float,
    scale: Sequence[Color],
    size: tuple[int, int],
) -> Image.Image:
    """Numbers, [H, W], in the colors of a scale from low to high; non-finite ones are gray."""
    values = _thinned(values, size)
    finite = np.isfinite(values)
    shade = (np.where(finite, values, low).astype(np.float64) - low) / max(high - low, 1e-12)
    place = np.clip(shade, 0, 1)
    anchors = np.linspace(0, 1, len(scale))
    channels = [np.interp(place, anchors, channel) for channel in zip(*scale, strict=True)]
    pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    pixels[~finite] = 128
    return panel_from_image(pixels, size)


def panel_from_depth(depth: Array, low: float, high: float, size: tuple[int, int]) -> Image.Image:
    """Depth, [H, W], from low to high as dark to light; non-finite values are gray.

    Positive depths are colored by their inverse, so that a distant background does not take most of
    the color scale.
    """
    if low <= 0:
        return panel_from_values(depth, low, high, RANGE, size)
    depth = _thinned(depth, size)
    known = np.where(np.isfinite(depth), depth.astype(np.float64), np.nan)
    return panel_from_values(-1 / np.maximum(known, low), -1 / low, -1 / high, RANGE, size)


def _thinned(array: Array, size: tuple[int, int]) -> Array:
    """Every k-th row and column of [H, W, ...] that is far larger than the panel, else the array.

    A server may send hundreds of megabytes for one sample, which the steps above multiply.
    """
    rows, columns = (
        max(1, n // (_MAX_REDUCTION * of)) for n, of in zip(array.shape[:2], size, strict=True)
    )
    return array[::rows, ::columns]
