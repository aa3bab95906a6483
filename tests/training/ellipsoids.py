"""Ellipsoids whose shape is known exactly, cameras around them, and networks that give them."""

import math
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from checkpoints import InverseGraphicsCard, write_inverse_graphics
from nets.inverse_graphics import BEND, InverseGraphics, InverseGraphicsConfig
from nets.textured import Cameras, camera_axes
from training.inverse_graphics.config import Template, template

DISTANCE, FOCAL = 6.0, 2.4
CARD = InverseGraphicsCard(
    format=1,
    kind="inverse-graphics",
    bundle_id="0" * 64,
    extent=16,
    hidden=6,
    texture=16,
    radius=1.0,
    camera=False,
    distance=DISTANCE,
    focal=FOCAL,
    background=["part 0"],
    keypoints=["left", "right", "top"],
    silhouette=0.9,
    licences=["CC0-1.0"],
    provenance={},
)
SPHERE: Template = template(torch.device("cpu"))


def ellipsoid(x: float = 0.8, y: float = 1.0, z: float = 0.9) -> Tensor:
    """Its points [642, 3]."""
    return SPHERE.sphere * torch.tensor([x, y, z])


def around(count: int, elevation: float = 10.0) -> Cameras:
    """Cameras at even azimuths from the front, elevations up and down in turn (degrees)."""
    turns = torch.arange(count) * (2 * math.pi / count)
    tilt = torch.tensor([math.radians(elevation)]) * (-1.0) ** torch.arange(count)
    one = torch.ones(count)
    return Cameras(turns, tilt, DISTANCE * one, FOCAL * one)


def keypoints_of(xyz: Tensor, cameras: Cameras) -> Tensor:
    """xyz [K, 3] as the cameras see them, through everything: [V, K, 3], confidence 1."""
    there = camera_axes(xyz.expand(len(cameras), -1, -1), cameras)
    plane = there[..., :2] * torch.tensor([1.0, -1.0]) / -there[..., 2:]
    confidence = torch.ones(*plane.shape[:2], 1)
    return torch.cat([plane * cameras.focal[:, None, None], confidence], dim=2)


def write_network(path: Path, points: Tensor | None = None, **changes: object) -> Path:
    """A network that gives these points, or an untrained one's, for every image; the card's
    changes shape it."""
    card = msgspec.structs.replace(CARD, **changes)
    torch.manual_seed(0)
    network = InverseGraphics(
        InverseGraphicsConfig(card.extent, card.hidden, card.texture, card.radius, card.camera)
    )
    if points is not None:
        network.bends.bias.data = ((points - SPHERE.sphere) / BEND).flatten()
    write_inverse_graphics(path, network, card)
    return path
