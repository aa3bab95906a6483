"""A textured mesh -> pictures: color, depth, normals and mask from a camera, and a turntable."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nets.textured import Cameras, Seen, seen_from
from training.inverse_graphics.config import Template
from training.sheet import PAPER, Row, sheet_from_rows

AZIMUTHS = 8  # columns of a turntable
TILE = 160  # side of a turntable's tile, pixels
FILLED = 0.95  # share of a tile's width that the object's bounding sphere fills


@dataclass(frozen=True)
class ObjectShape:
    """Vertices and texture of one object on the template's faces, float32."""

    points: Tensor  # [642, 3], in the object frame and its units
    texture: Tensor  # [3, T, 2T] in [0, 1]


def seen_shape(shape: ObjectShape, template: Template, cameras: Cameras, resolution: int) -> Seen:
    """Renders a shape from each camera, at resolution x resolution pixels."""
    count = len(cameras)
    return seen_from(
        shape.points.expand(count, -1, -1), template.faces, template.uv,
        shape.texture.expand(count, -1, -1, -1), cameras, resolution,
    )  # fmt: skip


def depth_of_seen(seen: Seen) -> NDArray[np.float32]:
    """z-depth in object units, float32 [N, R, R]; 0 for background, because files hold no inf."""
    depth: NDArray[np.float32] = seen.depth.nan_to_num(0.0, 0.0, 0.0).numpy()
    return depth


def mask_of_seen(seen: Seen) -> NDArray[np.uint8]:
    """uint8 [N, R, R]: 255 on the object, else 0."""
    mask: NDArray[np.uint8] = ((seen.face >= 0) * 255).byte().numpy()
    return mask


def colors_of_seen(seen: Seen) -> NDArray[np.uint8]:
    """uint8 [N, R, R, 3], on the sheets' background."""
    return _on_paper(seen, seen.color.permute(0, 2, 3, 1).numpy())


def normals_of_seen(seen: Seen, on_paper: bool = False) -> NDArray[np.uint8]:
    """Normals as uint8 [N, R, R, 3]: components to the right, up and towards the camera, -1..1 as
    0..255. The background is black, or that of the sheets."""
    scaled = (seen.normals.permute(0, 2, 3, 1).numpy() + 1) / 2
    if on_paper:
        return _on_paper(seen, scaled)
    return mask_of_seen(seen)[..., None] // 255 * _bytes(scaled)


def turntable(shape: ObjectShape, template: Template, distance: float) -> Image.Image:
    """A contact sheet of the object from eight azimuths, from the front towards its left.

    Rows: color, normals, depth (near is bright). The focal length is chosen so that the whole
    object is visible from `distance`, whatever the training images showed.
    """
    angles = [i * 2 * math.pi / AZIMUTHS for i in range(AZIMUTHS)]
    reach = min(float(shape.points.norm(dim=1).max()), 0.9 * distance)
    focal = FILLED / 2 * math.sqrt(distance**2 - reach**2) / max(reach, 1e-6)
    cameras = Cameras(
        torch.tensor(angles),
        torch.zeros(AZIMUTHS),
        torch.full((AZIMUTHS,), distance),
        torch.full((AZIMUTHS,), focal),
    )
    seen = seen_shape(shape, template, cameras, TILE)
    depth = torch.where(seen.face >= 0, seen.depth, distance)
    gray = 0.55 + 0.4 * (distance - depth) / (depth - distance).abs().max().clamp(min=1e-6)
    rows = [
        colors_of_seen(seen),
        normals_of_seen(seen, on_paper=True),
        _on_paper(seen, gray[..., None].expand(-1, -1, -1, 3).numpy()),
    ]
    titles = ("color", "normals", "depth, near is bright")
    return sheet_from_rows(
        [
            Row(title, [Image.fromarray(picture) for picture in pictures])
            for title, pictures in zip(titles, rows, strict=True)
        ],
        [f"azimuth {math.degrees(angle):.0f}°" for angle in angles],
    )


def _on_paper(seen: Seen, colors: NDArray[np.floating]) -> NDArray[np.uint8]:
    there = (seen.face >= 0).numpy()[..., None]
    return np.where(there, _bytes(colors), np.array(PAPER, np.uint8))


def _bytes(unit: NDArray[np.floating]) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = (np.nan_to_num(np.clip(unit, 0, 1)) * 255).round().astype(np.uint8)
    return scaled
