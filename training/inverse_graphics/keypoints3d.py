r"""2D keypoints in several views of an object -> 3D keypoints, anchored on the object's mesh.

Each 2D keypoint is a ray from its camera. Per keypoint there are two estimates:

1. The hit median: the geometric median of where its rays first hit the mesh. It is rough, but
   robust: a view that cannot see the keypoint hits the wrong side of the object.
2. The ray intersection: the point nearest to the rays, found from the hit median by reweighted
   least squares. Rays that pass far from it lose their weight: such a view took something else for
   the keypoint. It does not depend on the mesh, which may be a little wrong.

Example, from above, front at the bottom. A and B see the nose tip K; C, behind the head, guesses.

         C
         |            first hits of A, B, C on the mesh:  K, K, c
     .---c---.        hit median:        K  (the mean would lie inside the head)
    /    |    \       ray intersection:  K  (all three rays pass through it)
   |     |     |
    \    |    /       If C's guess is wrong, its ray passes K at a distance and loses its weight.
     '---K---'        If all cameras stand at A, their rays are parallel and have no intersection:
        / \           the hit median is the result.
       A   B

Neither weights by the angle between mesh and ray nor a constraint to the surface gave better
keypoints.
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

ROUNDS = 20  # rounds of reweighting, for both estimates
TAIL = 1.5  # a ray loses its weight from this many median distances on (Geman and McClure)
AGREES = 3.0  # a ray agrees up to this many median distances
NOISE = 1 / 600  # best accuracy of a 2D keypoint, over the camera's distance
MIN_SPREAD = 0.01  # mean squared sine between rays and their common direction, for an intersection


@dataclass(frozen=True)
class Anchors:
    """K places on the surface of a mesh, which move with it."""

    faces: Tensor  # int64 [K], indices of faces
    weights: Tensor  # [K, 3], barycentric: of the face's corners, with a sum of 1

    def on(self, points: Tensor, faces: Tensor) -> Tensor:
        """Positions [K, 3] on the mesh with vertices [V, 3] and faces [F, 3]."""
        return (points[faces[self.faces]] * self.weights[:, :, None]).sum(dim=1)


@dataclass(frozen=True)
class Keypoints3D:
    """K keypoints of one object, in the object frame and its units."""

    names: tuple[str, ...]
    xyz: Tensor  # [K, 3], 0 where unknown
    views: Tensor  # int64 [K], views whose rays agree on the keypoint; 0: unknown
    spread: Tensor  # [K], mean distance of those rays from the keypoint
    by_rays: Tensor  # bool [K], ray intersection; else the hit median
    anchors: Anchors  # nearest places on the mesh
    vertices: Tensor  # int64 [K], nearest vertices of the mesh


def keypoints_on_mesh(
    names: Sequence[str], keypoints: Tensor, cameras: Cameras, points: Tensor, faces: Tensor
) -> Keypoints3D:
    """3D keypoints from V views; see the module's docstring.

    keypoints [V, K, 3] are x, y in image extents from the center, y down, and confidence; NaN or a
    confidence of 0: not seen. The mesh has vertices `points` [P, 3] and faces int64 [F, 3].
    """
    seen = keypoints.isfinite().all(dim=2, keepdim=True)
    keypoints = torch.where(seen, keypoints, 0.0)
    confidence = keypoints[..., 2].clamp(min=0)  # [V, K]
    rays = rays_from_keypoints(cameras, keypoints)
    noise = float(cameras.distance.mean()) * NOISE

    hits = hits_of_rays(rays, points, faces)
    hit_median, has_hit = _median_of_hits(hits, confidence, noise)
    intersection, intersects = _intersection_of_rays(rays, confidence, hit_median, has_hit, noise)
    xyz = torch.where(has_hit[:, None], hit_median, 0.0)
    xyz = torch.where(intersects[:, None], intersection, xyz)

    views, spread = _agreement(rays, confidence, xyz, has_hit | intersects, noise)
    face, weights = places_near(xyz, points, faces)
    vertices = torch.cdist(xyz, points).argmin(dim=1)
    anchors = Anchors(face, weights)
    return Keypoints3D(tuple(names), xyz, views, spread, intersects, anchors, vertices)


def _median_of_hits(hits: RayHits, confidence: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Geometric medians of the hits [K, 3], weighted by confidence [V, K] (Weiszfeld's algorithm),
    and whether there was any hit, bool [K]."""
    weight = confidence * hits.there  # [V, K]
    current = weight
    for _ in range(ROUNDS):
        total = current.sum(dim=0)[:, None].clamp(min=1e-12)
        median = (current[..., None] * hits.xyz).sum(dim=0) / total
        current = weight / (hits.xyz - median).norm(dim=2).clamp(min=noise / 100)
    return median, weight.sum(dim=0) > 0


def _intersection_of_rays(
    rays: Rays, confidence: Tensor, start: Tensor, has_start: Tensor, noise: float
) -> tuple[Tensor, Tensor]:
    """Points where most rays of a keypoint meet [K, 3], and whether the directions differ enough
    for a depth, bool [K].

    Reweighting begins at `start` [K, 3] where `has_start`, else at the point nearest to all rays.
    """
    nearest_to_all, _ = rays.nearest_points(confidence)
    away = rays.distances(torch.where(has_start[:, None], start, nearest_to_all))
    for _ in range(ROUNDS):
        scale = TAIL * _weighted_median(away, confidence, noise)
        xyz, spread = rays.nearest_points(confidence / (1 + (away / scale).square()).square())
        away = rays.distances(xyz)
    return xyz, spread > MIN_SPREAD


def _agreement(
    rays: Rays, confidence: Tensor, xyz: Tensor, known: Tensor, noise: float
) -> tuple[Tensor, Tensor]:
    """Number of views that agree on each keypoint xyz [K, 3], int64 [K], and the mean distance of
    their rays from it, [K]; 0 where `known`, bool [K], is false."""
    away = rays.distances(xyz)
    limit = AGREES * _weighted_median(away, confidence, noise)
    agrees = (away <= limit) & (confidence > 0) & known
    views = agrees.sum(dim=0)
    return views, torch.where(agrees, away, 0.0).sum(dim=0) / views.clamp(min=1)


def _weighted_median(distances: Tensor, weight: Tensor, noise: float) -> Tensor:
    """Weighted medians over the views of [V, K], [K], at least `noise`."""
    ordered, order = distances.sort(dim=0)
    cumulative = weight.gather(0, order).cumsum(dim=0)
    middle = (cumulative >= cumulative[-1:] / 2).float().argmax(dim=0, keepdim=True)
    return ordered.gather(0, middle)[0].clamp(min=noise)


def posed(points: Tensor, faces: Tensor, anchors: Anchors, targets: Tensor) -> Tensor:
    """Vertices [P, 3] displaced so that the anchors reach `targets` [K, 3] and the rest follows
    smoothly: of all such displacements, the one with the smallest squared Laplacian.

    Two keypoints with one anchor and different targets meet in the middle.
    """
    count = len(points)
    eye = torch.eye(count, dtype=torch.float64, device=points.device)
    bends = laplacian(eye[None], edges_of_faces(faces))[0]
    handles = (eye[faces[anchors.faces]] * anchors.weights[:, :, None].double()).sum(dim=1)
    displacement = targets.double() - handles @ points.double()  # [K, 3], the anchors'
    # Minimise |bends @ shift|^2 subject to handles @ shift = displacement, by Lagrange multipliers.
    # The damping keeps the system solvable when two keypoints have one anchor.
    damping = -1e-9 * torch.eye(len(targets), dtype=torch.float64, device=points.device)
    system = torch.cat(
        [
            torch.cat([bends.T @ bends, handles.T], dim=1),
            torch.cat([handles, damping], dim=1),
        ]
    )
    right = torch.cat([torch.zeros_like(points, dtype=torch.float64), displacement])
    shift: Tensor = torch.linalg.solve(system, right)[:count]
    return points + shift.to(points.dtype)
