"""Renders textured meshes with sphere topology from cameras around them, differentiably.

Object frame: x to the object's left, y up, z out of its front. Cameras look at the origin, with y
upright in the image. A camera at azimuth 0 is in front of the object, at a positive azimuth on the
object's left, at a positive elevation above it. These are the view bank's angles, in radians.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.mesh import vertex_normals
from nets.rasteriser import SHARPNESS, projected, rasterise


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras, float32 [N] each."""

    azimuth: Tensor  # radians
    elevation: Tensor  # radians
    distance: Tensor  # from the origin, in object units
    focal: Tensor  # focal length divided by the image's side

    def __len__(self) -> int:
        return len(self.azimuth)

    def __getitem__(self, rows: Tensor | slice) -> "Cameras":
        return Cameras(
            self.azimuth[rows], self.elevation[rows], self.distance[rows], self.focal[rows]
        )


@dataclass(frozen=True)
class Seen:
    """N images of R x R pixels; where no face is, color and normals are 0, and depth is +inf."""

    color: Tensor  # [N, 3, R, R] in [0, 1]
    coverage: Tensor  # [N, R, R] in [0, 1]
    depth: Tensor  # [N, R, R], z-depth
    normals: Tensor  # [N, 3, R, R], unit vectors along the camera's right, up and backward axes
    face: Tensor  # int64 [N, R, R], -1 where no face is


def seen_from(
    points: Tensor,  # [N, V, 3], object frame
    faces: Tensor,  # int64 [F, 3]
    uv: Tensor,  # [F, 3, 2] of `sphere_uv`
    texture: Tensor,  # [N, 3, T, 2T] in [0, 1]
    cameras: Cameras,
    resolution: int,
    light: Tensor | None = None,  # [N, 4]: ambient, then direction in camera axes; None: unlit
    sharpness: float = SHARPNESS,  # sharpness of the silhouette, see `rasterise`
) -> Seen:
    """Renders each object with its texture; lighting is ambient + normal . direction.

    Color, coverage, depth and normals are differentiable in points, texture and light.
    """
    turned = camera_axes(points, cameras)
    on_plane = projected(
        turned * turned.new_tensor([1.0, -1.0, -1.0]), cameras.focal[:, None, None]
    )
    normal = vertex_normals(turned - turned.mean(dim=1, keepdim=True), faces)[:, faces]
    attributes = torch.cat([uv.expand(len(points), -1, -1, -1), normal], dim=3)
    drawn = rasterise(on_plane, faces, attributes, resolution, sharpness)
    covered = (drawn.face >= 0)[:, None]
    normals = F.normalize(drawn.attributes[:, 2:], dim=1)
    color = texture_at(texture, drawn.attributes[:, :2])
    if light is not None:
        lit = light[:, :1, None, None] + (light[:, 1:, None, None] * normals).sum(1, keepdim=True)
        color = (color * lit).clamp(0, 1)
    return Seen(torch.where(covered, color, 0.0), drawn.coverage, drawn.depth, normals, drawn.face)


def camera_axes(points: Tensor, cameras: Cameras) -> Tensor:
    """Points in the object frame [N, V, 3] -> in the camera's frame [N, V, 3].

    The camera is at the origin; its axes are right, up and backward (away from the object).
    """
    ca, sa = cameras.azimuth.cos(), cameras.azimuth.sin()
    ce, se = cameras.elevation.cos(), cameras.elevation.sin()
    right = torch.stack([ca, torch.zeros_like(ca), -sa], dim=1)
    up = torch.stack([-sa * se, ce, -ca * se], dim=1)
    backward = torch.stack([sa * ce, se, ca * ce], dim=1)
    turned = points @ torch.stack([right, up, backward], dim=2)
    offset = torch.zeros_like(backward)
    offset[:, 2] = cameras.distance
    return turned - offset[:, None]


def sphere_uv(vertices: Tensor, faces: Tensor) -> Tensor:
    """Vertices of the unit sphere [V, 3] -> texture coordinates of each face's corners, [F, 3, 2].

    u goes once around the y axis from the object's right to its left, and is 0.5 at the front. v is
    0 at the top and 1 at the bottom. In faces across the seam at the back u exceeds 1, because the
    texture repeats. A pole has no u; it takes the mean of its face's other corners.

    Example: a face at the back with u = 0.95, 0.05, 0.98 gets u = 0.95, 1.05, 0.98.
    """
    x, y, z = vertices.double().unbind(dim=1)
    pole = x.square() + z.square() < 1e-9
    u = torch.where(pole, torch.nan, torch.atan2(x, z) / (2 * math.pi) + 0.5)[faces]
    largest = u.nan_to_num(nan=-1).amax(dim=1, keepdim=True)
    u = torch.where(largest - u > 0.5, u + 1, u)
    u = torch.where(u.isnan(), u.nanmean(dim=1, keepdim=True), u)
    v = torch.acos(y.clamp(-1, 1)) / math.pi
    return torch.stack([u, v[faces]], dim=2).to(vertices.dtype)


def texture_at(texture: Tensor, uv: Tensor) -> Tensor:
    """Textures [N, C, T, W] at uv [N, 2, R, R] -> [N, C, R, R], bilinear; u wraps, v is clamped."""
    width = texture.shape[3]
    wrapped = F.pad(texture, (1, 1, 0, 0), mode="circular")
    u, v = uv.unbind(dim=1)
    x = ((u - u.floor()) * width + 1) / (width + 2)
    grid = torch.stack([x, v], dim=3) * 2 - 1
    return F.grid_sample(wrapped, grid, mode="bilinear", padding_mode="border", align_corners=False)
