"""2D keypoints and cameras -> rays; where rays meet one another and where they hit a mesh.

Everything is in the object frame and its units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.textured import Cameras, camera_axes

EDGE = 1e-6  # tolerance of barycentric weights: a ray along an edge must not slip between two faces
MAX_PAIRS = 1 << 22  # rays times faces that are compared at once


@dataclass(frozen=True)
class Rays:
    """Rays of K keypoints in V views."""

    origin: Tensor  # [V, 1, 3], the cameras
    direction: Tensor  # [V, K, 3], unit vectors

    def distances(self, xyz: Tensor) -> Tensor:
        """Distances [V, K] of keypoints xyz [K, 3] from their rays."""
        to = xyz - self.origin
        away: Tensor = torch.linalg.cross(to, self.direction).norm(dim=2)
        return away

    def nearest_points(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The point nearest to the rays of each keypoint, [K, 3], by least squares with weights
        [V, K], and how different the rays' directions are, [K].

        The latter is the mean squared sine between the rays and their common direction; 0: they
        are parallel and the point's depth is undefined.
        """
        weight = (weight / weight.sum(dim=0).clamp(min=1e-12)).double()
        direction = self.direction.double()
        # Projections onto the planes at right angles to the rays: |projection @ (x - origin)| is
        # the distance of x from the ray.
        eye = torch.eye(3, dtype=direction.dtype)
        projection = eye - direction[..., :, None] * direction[..., None, :]
        normal = (weight[..., None, None] * projection).sum(dim=0)  # [K, 3, 3]
        projected = (projection @ self.origin.double()[..., None])[..., 0]
        right = (weight[..., None] * projected).sum(dim=0)
        spread = torch.linalg.eigvalsh(normal)[:, 0].clamp(min=0)
        ridge = 1e-9 * torch.eye(3, dtype=direction.dtype)
        xyz = torch.linalg.solve(normal + ridge, right[..., None])[..., 0]
        return xyz.to(self.direction.dtype), spread.to(self.direction.dtype)


@dataclass(frozen=True)
class RayHits:
    """Where rays first hit a mesh."""

    xyz: Tensor  # [V, K, 3], 0 where there is no hit
    there: Tensor  # bool [V, K], whether there is a hit


def rays_from_keypoints(cameras: Cameras, keypoints: Tensor) -> Rays:
    """Rays of keypoints [V, K, 2 or more] in V cameras: x, y in image extents from the center, y
    down."""
    zero = torch.zeros_like(cameras.distance)
    rotation = Cameras(cameras.azimuth, cameras.elevation, zero, cameras.focal)
    # Columns are the cameras' right, up and backward axes, [V, 3, 3].
    axes = camera_axes(torch.eye(3).expand(len(cameras), 3, 3), rotation)
    x, y = keypoints[..., 0], keypoints[..., 1]
    focal = cameras.focal[:, None]
    in_camera = torch.stack([x / focal, -y / focal, -torch.ones_like(x)], dim=2)
    direction = in_camera @ axes.transpose(1, 2)
    origin = axes[:, :, 2] * cameras.distance[:, None]
    return Rays(origin[:, None], direction / direction.norm(dim=2, keepdim=True))


def hits_of_rays(rays: Rays, points: Tensor, faces: Tensor) -> RayHits:
    """First hits on the mesh with vertices [P, 3] and faces [F, 3] (Moeller and Trumbore, 1997)."""
    direction = rays.direction.flatten(0, 1)
    origin = rays.origin.expand_as(rays.direction).flatten(0, 1)
    chunk = max(1, MAX_PAIRS // len(faces))
    found = [
        _first_hits(a, b, points[faces])
        for a, b in zip(origin.split(chunk), direction.split(chunk), strict=True)
    ]
    xyz, there = (torch.cat(parts) for parts in zip(*found, strict=True))
    shape = rays.direction.shape[:2]
    return RayHits(xyz.unflatten(0, shape), there.unflatten(0, shape))


def _first_hits(origin: Tensor, direction: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Rays [R, 3] and corners of faces [F, 3, 3] -> hits [R, 3], 0 for none, and whether there is
    one, bool [R]."""
    a, b, c = corners.unbind(dim=1)
    across = torch.linalg.cross(direction[:, None], (c - a)[None])  # [R, F, 3]
    determinant = (across * (b - a)).sum(dim=2)
    over = 1 / torch.where(determinant == 0, torch.nan, determinant)  # NaN: parallel
    from_a = origin[:, None] - a
    u = (across * from_a).sum(dim=2) * over
    along = torch.linalg.cross(from_a, (b - a)[None])
    v = (along * direction[:, None]).sum(dim=2) * over
    t = (along * (c - a)).sum(dim=2) * over
    inside = (u >= -EDGE) & (v >= -EDGE) & (u + v <= 1 + EDGE) & (t > 0)  # false for NaN
    distance = torch.where(inside, t, torch.inf).amin(dim=1)
    hit = distance.isfinite()
    xyz = origin + direction * torch.where(hit, distance, 0.0)[:, None]
    return torch.where(hit[:, None], xyz, 0.0), hit


def places_near(xyz: Tensor, points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The places on a mesh nearest to xyz [K, 3]: their faces int64 [K] and barycentric weights
    [K, 3]. A face's nearest place is the foot of the perpendicular or lies on an edge."""
    corners = points[faces]  # [F, 3, 3]
    weights = torch.cat([_feet(xyz, corners), *_on_edges(xyz, corners)])  # [4, K, F, 3]
    place = (weights[..., None] * corners).sum(dim=3)
    away = (place - xyz[None, :, None]).norm(dim=3)
    away = torch.where((weights >= 0).all(dim=3), away, torch.inf)
    best = away.transpose(0, 1).flatten(1).argmin(dim=1)
    kind, face = best // len(faces), best % len(faces)
    return face, weights[kind, torch.arange(len(xyz)), face]


def _feet(xyz: Tensor, corners: Tensor) -> Tensor:
    """Barycentric weights of the feet of the perpendiculars from xyz to the faces' planes,
    [1, K, F, 3]; one is negative if the foot lies outside the face; NaN for faces without area."""
    a, b, c = corners.unbind(dim=1)
    ab, ac, to = b - a, c - a, xyz[:, None] - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (to * ab).sum(2), (to * ac).sum(2)
    area = d00 * d11 - d01 * d01
    over = 1 / torch.where(area > 0, area, torch.nan)
    v, w = (d11 * d20 - d01 * d21) * over, (d00 * d21 - d01 * d20) * over
    return torch.stack([1 - v - w, v, w], dim=2)[None]


def _on_edges(xyz: Tensor, corners: Tensor) -> list[Tensor]:
    """Barycentric weights of the nearest places on each of the faces' three edges, [1, K, F, 3]."""
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
