"""Multi-view sets of ellipsoids with a painted front, which are exactly known."""

import torch
from torch import Tensor

from nets.textured import Cameras, seen_from
from training.inverse_graphics.config import template
from training.inverse_graphics.object_sets import ObjectSets, codes_of_objects

EXTENT = 32


def bank_of(azimuths: list[float]) -> Cameras:
    """Cameras at these azimuths, radians, at the demo's distance."""
    azimuth = torch.tensor(azimuths)
    one = torch.ones_like(azimuth)
    return Cameras(azimuth, 0.1 * azimuth, 6.0 * one, 2.4 * one)


BANK = bank_of([-0.9, -0.3, 0.3, 0.9])


def ellipsoids(count: int, seed: int = 0) -> Tensor:
    """Points [count, 642, 3] of ellipsoids with semi-axes from 0.6 to 1.1."""
    axes = 0.6 + 0.5 * torch.rand(count, 1, 3, generator=torch.Generator().manual_seed(seed))
    return template(torch.device("cpu")).sphere * axes


def sets_of_ellipsoids(count: int, views: int = 4) -> ObjectSets:
    """Each seen from `views` cameras of BANK."""
    mesh = template(torch.device("cpu"))
    points = ellipsoids(count)
    texture = torch.full((count, 3, 16, 32), 0.7)
    texture[:, 0, 6:10, 12:20] = 0.1
    codes = torch.from_numpy(codes_of_objects(count, views, len(BANK), 0))
    images, silhouettes = [], []
    for column in codes.t():
        seen = seen_from(points, mesh.faces, mesh.uv, texture, BANK[column], EXTENT)
        images.append((seen.color * 255).round().to(torch.uint8))
        silhouettes.append((seen.face >= 0).to(torch.uint8) * 255)
    return ObjectSets(torch.stack(images, 1), torch.stack(silhouettes, 1), codes, None)
