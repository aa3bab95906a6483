"""A sphere of 642 vertices, bent and wrapped in a texture, as cameras around it see it.

Object frame: x to the object's left, y up, z out of its front; cameras look at the origin, y
upright in the image. A camera at azimuth 0 stands before the front, at a positive one towards the
object's left, at a positive elevation above (the view bank's angles, in radians here).
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
    focal: Tensor  # focal length over the image's extent

    def __len__(self) -> int:
        return len(self.azimuth)

    def __getitem__(self, rows: Tensor | slice) -> "Cameras":
        return Cameras(
            self.azimuth[rows], self.elevation[rows], self.distance[rows], self.focal[rows]
        )


@dataclass(frozen=True)
class Seen:
    """N images of R x R pixels; where nothing is, colour and normals are 0, depth is +inf."""

    colour: Tensor  # [N, 3, R, R] in [0, 1]
    coverage: Tensor  # [N, R, R] in [0, 1]
    depth: Tensor  # [N, R, R], z-depth
    normals: Tensor  # [N, 3, R, R], of unit length: right, up, towards the camera
    face: Tensor  # int64 [N, R, R], -1 where nothing is


def seen_from(
    points: Tensor,  # [N, V, 3], object frame
    faces: Tensor,  # int64 [F, 3]
    uv: Tensor,  # [F, 3, 2], `sphere_uv`
    texture: Tensor,  # [N, 3, T, 2T] in [0, 1]
    cameras: Cameras,
    resolution: int,
    light: Tensor | None = None,  # [N, 4]: ambient, then along right, up, towards the camera
    sharpness: float = SHARPNESS,  # of the coverage, see `rasterise`
) -> Seen:
    """Draws each object with its texture, lit (ambient + normal . direction) where there is light;
    gradients reach points, texture and light, through coverage, depth and normals as well."""
    turned = camera_axes(points, cameras)
    on_plane = projected(
        turned * turned.new_tensor([1.0, -1.0, -1.0]), cameras.focal[:, None, None]
    )
    normal = vertex_normals(turned - turned.mean(dim=1, keepdim=True), faces)[:, faces]
    attributes = torch.cat([uv.expand(len(points), -1, -1, -1), normal], dim=3)
    drawn = rasterise(on_plane, faces, attributes, resolution, sharpness)
    there = (drawn.face >= 0)[:, None]
    normals = F.normalize(drawn.attributes[:, 2:], dim=1)
    colour = texture_at(texture, drawn.attributes[:, :2])
    if light is not None:
        lit = light[:, :1, None, None] + (light[:, 1:, None, None] * normals).sum(1, keepdim=True)
        colour = (colour * lit).clamp(0, 1)
    return Seen(torch.where(there, colour, 0.0), drawn.coverage, drawn.depth, normals, drawn.face)


def camera_axes(points: Tensor, cameras: Cameras) -> Tensor:
    """Object frame [N, V, 3] -> along the camera's right, up and backward axes, [N, V, 3], the
    camera at the origin."""
    ca, sa = cameras.azimuth.cos(), cameras.azimuth.sin()
    ce, se = cameras.elevation.cos(), cameras.elevation.sin()
    right = torch.stack([ca, torch.zeros_like(ca), -sa], dim=1)
    up = torch.stack([-sa * se, ce, -ca * se], dim=1)
    backward = torch.stack([sa * ce, se, ca * ce], dim=1)
    turned = points @ torch.stack([right, up, backward], dim=2)
    away = torch.zeros_like(backward)
    away[:, 2] = cameras.distance
    return turned - away[:, None]


def sphere_uv(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit sphere [V, 3] -> texture coordinates of each face's corners, [F, 3, 2].

    u runs once around the y axis, 0.5 at the front, from the object's right to its left; v from
    the top, 0, to the bottom, 1. Across the seam at the back u goes on beyond 1: a texture
    repeats. A pole has no u of its own and takes the middle of its face's others.
    """
    x, y, z = vertices.double().unbind(dim=1)
    pole = x.square() + z.square() < 1e-9
    u = torch.where(pole, torch.nan, torch.atan2(x, z) / (2 * math.pi) + 0.5)[faces]
    furthest = u.nan_to_num(nan=-1).amax(dim=1, keepdim=True)
    u = torch.where(furthest - u > 0.5, u + 1, u)
    u = torch.where(u.isnan(), u.nanmean(dim=1, keepdim=True), u)
    v = torch.acos(y.clamp(-1, 1)) / math.pi
    return torch.stack([u, v[faces]], dim=2).to(vertices.dtype)


def texture_at(texture: Tensor, uv: Tensor) -> Tensor:
    """[N, C, T, W] at [N, 2, R, R] -> [N, C, R, R], bilinear; u repeats, v ends at the border."""
    width = texture.shape[3]
    wrapped = F.pad(texture, (1, 1, 0, 0), mode="circular")
    u, v = uv.unbind(dim=1)
    x = ((u - u.floor()) * width + 1) / (width + 2)
    grid = torch.stack([x, v], dim=3) * 2 - 1
    return F.grid_sample(wrapped, grid, mode="bilinear", padding_mode="border", align_corners=False)
