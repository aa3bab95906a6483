"""Pictures of a textured mesh: colour, depth and normals as a camera sees them, and a turntable."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from nets.textured import Cameras, Seen, seen_from
from training.inverse_graphics.config import Template
from training.views.sheet import CAPTION, GAP, INK, PAPER

AZIMUTHS = 8
TILE = 160  # pixels of a turntable's tile
FILLED = 0.95  # of a tile, by the sphere that holds the object


@dataclass(frozen=True)
class ObjectShape:
    """One object, float32."""

    points: Tensor  # [642, 3], object frame and units
    texture: Tensor  # [3, T, 2T] in [0, 1]


def seen_shape(shape: ObjectShape, template: Template, cameras: Cameras, resolution: int) -> Seen:
    """A shape as each of the cameras sees it."""
    count = len(cameras)
    return seen_from(
        shape.points.expand(count, -1, -1), template.faces, template.uv,
        shape.texture.expand(count, -1, -1, -1), cameras, resolution,
    )  # fmt: skip


def depth_of_seen(seen: Seen) -> NDArray[np.float32]:
    """z-depth in object units [N, R, R], 0 where nothing is: it is written to files."""
    depth: NDArray[np.float32] = seen.depth.nan_to_num(0.0, 0.0, 0.0).numpy()
    return depth


def there_of_seen(seen: Seen) -> NDArray[np.uint8]:
    """[N, R, R], 255 where the object is."""
    there: NDArray[np.uint8] = ((seen.face >= 0) * 255).byte().numpy()
    return there


def colors_of_seen(seen: Seen) -> NDArray[np.uint8]:
    """[N, R, R, 3], on paper."""
    return _on_paper(seen, seen.colour.permute(0, 2, 3, 1).numpy())


def normals_of_seen(seen: Seen, on_paper: bool = False) -> NDArray[np.uint8]:
    """[N, R, R, 3]: right, up and towards the camera from -1 to 1 as 0 to 255; black, or paper,
    where nothing is."""
    scaled = (seen.normals.permute(0, 2, 3, 1).numpy() + 1) / 2
    if on_paper:
        return _on_paper(seen, scaled)
    return there_of_seen(seen)[..., None] // 255 * _bytes(scaled)


def turntable(shape: ObjectShape, template: Template, distance: float) -> Image.Image:
    """Eight azimuths across, from the front towards the object's left; colour, normals and depth
    (near is bright) below one another. The whole object is in it, whatever the images showed."""
    angles = [i * 2 * math.pi / AZIMUTHS for i in range(AZIMUTHS)]
    reach = min(float(shape.points.norm(dim=1).max()), 0.9 * distance)
    focal = FILLED / 2 * math.sqrt(distance**2 - reach**2) / max(reach, 1e-6)
    around = Cameras(
        torch.tensor(angles),
        torch.zeros(AZIMUTHS),
        torch.full((AZIMUTHS,), distance),
        torch.full((AZIMUTHS,), focal),
    )
    seen = seen_shape(shape, template, around, TILE)
    depth = torch.where(seen.face >= 0, seen.depth, distance)
    grey = 0.55 + 0.4 * (distance - depth) / (depth - distance).abs().max().clamp(min=1e-6)
    rows = [
        colors_of_seen(seen),
        normals_of_seen(seen, on_paper=True),
        _on_paper(seen, grey[..., None].expand(-1, -1, -1, 3).numpy()),
    ]
    size = (GAP + AZIMUTHS * (TILE + GAP), CAPTION + GAP + len(rows) * (TILE + GAP))
    sheet = Image.new("RGB", size, PAPER)
    for column, angle in enumerate(angles):
        x = GAP + column * (TILE + GAP)
        ImageDraw.Draw(sheet).text((x + 2, 2), f"azimuth {math.degrees(angle):.0f}", INK)
        for row, pictures in enumerate(rows):
            y = CAPTION + GAP + row * (TILE + GAP)
            sheet.paste(Image.fromarray(pictures[column]), (x, y))
    return sheet


def _on_paper(seen: Seen, colours: NDArray[np.floating]) -> NDArray[np.uint8]:
    there = (seen.face >= 0).numpy()[..., None]
    return np.where(there, _bytes(colours), np.array(PAPER, np.uint8))


def _bytes(unit: NDArray[np.floating]) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = (np.nan_to_num(np.clip(unit, 0, 1)) * 255).round().astype(np.uint8)
    return scaled
