"""Keypoints of several views -> points in the object frame, anchored on the object's mesh.

A view's keypoint is a ray from its camera. Where rays first hit the mesh tells roughly where the
keypoint is, by a geometric median: views that hide it hit the wrong side. From there the point
nearest to the rays is found, without those that pass far by, which take it for another. Neither
weighting hits by how they face the camera nor keeping to the surface made it better; a mesh that
is a little wrong does no harm to rays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nets.mesh import edges_of_faces, laplacian
from nets.textured import Cameras
from training.inverse_graphics.rays import (
    RayHits,
    Rays,
    hits_of_rays,
    places_near,
    rays_from_keypoints,
)

ROUNDS = 20  # of reweighting
TAIL = 1.5  # median distances from which on a ray loses its weight (Geman and McClure)
AGREES = 3.0  # median distances within which a ray agrees
NOISE = 1 / 600  # of a camera's distance: what a keypoint is told to at best, and counts as one
NARROW = 0.01  # mean squared sine between the rays and the direction they agree on


@dataclass(frozen=True)
class Anchors:
    """K places on a mesh's surface, which move with it."""

    faces: Tensor  # int64 [K]
    weights: Tensor  # [K, 3], of the face's corners, adding up to 1

    def on(self, points: Tensor, faces: Tensor) -> Tensor:
        """The places on these points [V, 3] of the mesh's faces [F, 3], [K, 3]."""
        return (points[faces[self.faces]] * self.weights[:, :, None]).sum(dim=1)


@dataclass(frozen=True)
class Keypoints3D:
    """K keypoints of one object, object frame and units."""

    names: tuple[str, ...]
    xyz: Tensor  # [K, 3], 0 where no view tells
    views: Tensor  # int64 [K], that agree on it; 0: it is not known
    spread: Tensor  # [K], mean distance of those views' rays from it
    by_rays: Tensor  # bool [K], whether its depth is where rays meet; else where they hit the mesh
    anchors: Anchors  # the nearest places on the mesh
    vertices: Tensor  # int64 [K], the nearest ones


def keypoints_on_mesh(
    names: Sequence[str], keypoints: Tensor, cameras: Cameras, points: Tensor, faces: Tensor
) -> Keypoints3D:
    """keypoints [V, K, 3]: x, y in image extents from the middle, y down, and confidence, of V
    cameras; points [P, 3] and faces [F, 3] of the object's mesh."""
    told = keypoints.isfinite().all(dim=2, keepdim=True)
    keypoints = torch.where(told, keypoints, 0.0)
    rays = rays_from_keypoints(cameras, keypoints)
    confidence = keypoints[..., 2].clamp(min=0)
    hits = hits_of_rays(rays, points, faces)
    noise = float(cameras.distance.mean()) * NOISE
    start, known = _middle_of_hits(hits, confidence, noise)
    met, wide = _met_by_rays(rays, confidence, start, known, noise)
    xyz = torch.where(wide[:, None], met, torch.where(known[:, None], start, 0.0))
    known = known | wide
    away = rays.distances(xyz)
    agrees = (away <= AGREES * _scale(away, confidence, noise)) & (confidence > 0) & known
    views = agrees.sum(dim=0)
    spread = torch.where(agrees, away, 0.0).sum(dim=0) / views.clamp(min=1)
    face, weights = places_near(xyz, points, faces)
    vertices = torch.cdist(xyz, points).argmin(dim=1)
    return Keypoints3D(tuple(names), xyz, views, spread, wide, Anchors(face, weights), vertices)


def posed(points: Tensor, faces: Tensor, anchors: Anchors, moved: Tensor) -> Tensor:
    """points [P, 3], moved so that the anchors lie at `moved` [K, 3] and the rest follows smoothly:
    of all such displacements the one with the smallest squared Laplacian."""
    count = len(points)
    eye = torch.eye(count, dtype=torch.float64, device=points.device)
    bends = laplacian(eye[None], edges_of_faces(faces))[0]
    handles = (eye[faces[anchors.faces]] * anchors.weights[:, :, None].double()).sum(dim=1)
    wanted = moved.double() - handles @ points.double()
    # The damping keeps two keypoints with one anchor solvable; they meet in the middle.
    damping = -1e-9 * torch.eye(len(moved), dtype=torch.float64, device=points.device)
    system = torch.cat(
        [
            torch.cat([bends.T @ bends, handles.T], dim=1),
            torch.cat([handles, damping], dim=1),
        ]
    )
    right = torch.cat([torch.zeros_like(points, dtype=torch.float64), wanted])
    shift: Tensor = torch.linalg.solve(system, right)[:count]
    return points + shift.to(points.dtype)


def _middle_of_hits(hits: RayHits, confidence: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Weighted geometric medians [K, 3] (Weiszfeld), and whether there was any hit [K]."""
    weight = confidence * hits.there  # [V, K]
    now = weight
    for _ in range(ROUNDS):
        middle = (now[..., None] * hits.xyz).sum(dim=0) / now.sum(dim=0)[:, None].clamp(min=1e-12)
        now = weight / (hits.xyz - middle).norm(dim=2).clamp(min=noise / 100)
    return middle, weight.sum(dim=0) > 0


def _met_by_rays(
    rays: Rays, confidence: Tensor, start: Tensor, known: Tensor, noise: float
) -> tuple[Tensor, Tensor]:
    """Where most rays meet, [K, 3], from a start where it is known; and whether they come from
    directions different enough to tell, [K]."""
    first, _ = rays.meeting(confidence)
    away = rays.distances(torch.where(known[:, None], start, first))
    for _ in range(ROUNDS):
        scale = TAIL * _scale(away, confidence, noise)
        xyz, narrow = rays.meeting(confidence / (1 + (away / scale).square()).square())
        away = rays.distances(xyz)
    return xyz, narrow > NARROW


def _scale(away: Tensor, weight: Tensor, noise: float) -> Tensor:
    """Weighted medians of distances [V, K], [K], not below the noise."""
    ordered, order = away.sort(dim=0)
    share = weight.gather(0, order).cumsum(dim=0)
    middle = (share >= share[-1:] / 2).float().argmax(dim=0, keepdim=True)
    return ordered.gather(0, middle)[0].clamp(min=noise)
