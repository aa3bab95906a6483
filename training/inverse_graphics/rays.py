"""Rays of keypoints: where they meet one another, and where they hit a mesh."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.textured import Cameras, camera_axes

EDGE = 1e-6  # of a face: a ray along an edge must not slip between the faces beside it
AT_ONCE = 1 << 22  # rays times faces


@dataclass(frozen=True)
class Rays:
    """Of K keypoints in V views, object frame."""

    origin: Tensor  # [V, 1, 3]
    direction: Tensor  # [V, K, 3], unit vectors

    def distances(self, xyz: Tensor) -> Tensor:
        """From xyz [K, 3] to each one's rays, [V, K]."""
        to = xyz - self.origin
        away: Tensor = torch.linalg.cross(to, self.direction).norm(dim=2)
        return away

    def meeting(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """With weights [V, K]: the points nearest to the rays by least squares, [K, 3], and how
        well they are told, [K]: the mean squared sine between the rays and their commonest
        direction, 0 where all are parallel."""
        weight = (weight / weight.sum(dim=0).clamp(min=1e-12)).double()
        way = self.direction.double()
        across = torch.eye(3, dtype=way.dtype) - way[..., :, None] * way[..., None, :]
        normal = (weight[..., None, None] * across).sum(dim=0)  # [K, 3, 3]
        seen = (across @ self.origin.double()[..., None])[..., 0]
        right = (weight[..., None] * seen).sum(dim=0)
        told = torch.linalg.eigvalsh(normal)[:, 0].clamp(min=0)
        ridge = 1e-9 * torch.eye(3, dtype=way.dtype)
        xyz = torch.linalg.solve(normal + ridge, right[..., None])[..., 0]
        return xyz.to(self.direction.dtype), told.to(self.direction.dtype)


@dataclass(frozen=True)
class RayHits:
    """Where rays first meet a mesh."""

    xyz: Tensor  # [V, K, 3], 0 where they do not
    there: Tensor  # bool [V, K], whether they do


def rays_from_keypoints(cameras: Cameras, keypoints: Tensor) -> Rays:
    """V cameras and keypoints [V, K, 2+]: x, y in image extents from the middle, y down."""
    middle = torch.zeros_like(cameras.distance)
    turned = Cameras(cameras.azimuth, cameras.elevation, middle, cameras.focal)
    axes = camera_axes(torch.eye(3).expand(len(cameras), 3, 3), turned)  # [V, 3, 3], in columns
    x, y = keypoints[..., 0], keypoints[..., 1]
    focal = cameras.focal[:, None]
    way = torch.stack([x / focal, -y / focal, -torch.ones_like(x)], dim=2)
    direction = way @ axes.transpose(1, 2)
    start = axes[:, :, 2] * cameras.distance[:, None]
    return Rays(start[:, None], direction / direction.norm(dim=2, keepdim=True))


def hits_of_rays(rays: Rays, points: Tensor, faces: Tensor) -> RayHits:
    """First hits on the mesh of points [P, 3] (Moeller and Trumbore, 1997)."""
    way = rays.direction.flatten(0, 1)
    start = rays.origin.expand_as(rays.direction).flatten(0, 1)
    chunk = max(1, AT_ONCE // len(faces))
    found = [
        _first_hits(a, b, points[faces])
        for a, b in zip(start.split(chunk), way.split(chunk), strict=True)
    ]
    xyz, there = (torch.cat(parts) for parts in zip(*found, strict=True))
    shape = rays.direction.shape[:2]
    return RayHits(xyz.unflatten(0, shape), there.unflatten(0, shape))


def _first_hits(start: Tensor, way: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Rays [R, 3] and faces [F, 3, 3] -> places [R, 3] and whether there is one, bool [R]."""
    a, b, c = corners.unbind(dim=1)
    across = torch.linalg.cross(way[:, None], (c - a)[None])  # [R, F, 3]
    determinant = (across * (b - a)).sum(dim=2)
    over = 1 / torch.where(determinant == 0, torch.nan, determinant)  # NaN: alongside the face
    from_a = start[:, None] - a
    u = (across * from_a).sum(dim=2) * over
    along = torch.linalg.cross(from_a, (b - a)[None])
    v = (along * way[:, None]).sum(dim=2) * over
    t = (along * (c - a)).sum(dim=2) * over
    inside = (u >= -EDGE) & (v >= -EDGE) & (u + v <= 1 + EDGE) & (t > 0)  # NaN is in none
    distance = torch.where(inside, t, torch.inf).amin(dim=1)
    hit = distance.isfinite()
    xyz = start + way * torch.where(hit, distance, 0.0)[:, None]
    return torch.where(hit[:, None], xyz, 0.0), hit


def places_near(xyz: Tensor, points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The places on the mesh that are nearest to xyz [K, 3]: their faces int64 [K], and weights of
    the faces' corners [K, 3]."""
    corners = points[faces]  # [F, 3, 3]
    weights = torch.cat([_within(xyz, corners), *_on_edges(xyz, corners)])  # [4, K, F, 3]
    place = (weights[..., None] * corners).sum(dim=3)
    away = (place - xyz[None, :, None]).norm(dim=3)
    away = torch.where((weights >= 0).all(dim=3), away, torch.inf)
    best = away.transpose(0, 1).flatten(1).argmin(dim=1)
    kind, face = best // len(faces), best % len(faces)
    return face, weights[kind, torch.arange(len(xyz)), face]


def _within(xyz: Tensor, corners: Tensor) -> Tensor:
    """Feet of the perpendiculars to the faces' planes, [1, K, F, 3]; below 0 where outside."""
    a, b, c = corners.unbind(dim=1)
    ab, ac, to = b - a, c - a, xyz[:, None] - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (to * ab).sum(2), (to * ac).sum(2)
    area = d00 * d11 - d01 * d01
    over = 1 / torch.where(area > 0, area, torch.nan)  # of a face without area: its edges
    v, w = (d11 * d20 - d01 * d21) * over, (d00 * d21 - d01 * d20) * over
    return torch.stack([1 - v - w, v, w], dim=2)[None]


def _on_edges(xyz: Tensor, corners: Tensor) -> list[Tensor]:
    """Nearest places on the faces' three edges, [1, K, F, 3] each."""
    found = []
    for first in range(3):
        second = (first + 1) % 3
        start, along = corners[:, first], corners[:, second] - corners[:, first]
        length = along.square().sum(dim=1).clamp(min=1e-30)
        t = (((xyz[:, None] - start) * along).sum(dim=2) / length).clamp(0, 1)
        weights = torch.zeros(1, *t.shape, 3)
        weights[0, :, :, first], weights[0, :, :, second] = 1 - t, t
        found.append(weights)
    return found
