"""Triangles -> pixels, differentiably (DIB-R; Chen et al., NeurIPS 2019).

A covered pixel interpolates the attributes of its nearest face; a pixel beside the object takes
1 - prod over faces (1 - exp(-sharpness d^2)) as its coverage, with d its distance to the face, so
that the silhouette pulls at the vertices. Coordinates of the image plane: x to the right, y down,
both from -0.5 to 0.5 over the image; distances d are in half images, as DIB-R has them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARPNESS = 7000.0  # DIB-R's
REACH = 0.02  # how far from a face's box its coverage is counted, in half images
NEAREST = 1e-3  # depth before which nothing is drawn
_TINY = 1e-12


@dataclass(frozen=True)
class Drawn:
    """N images of R x R pixels."""

    attributes: Tensor  # [N, A, R, R], zero where nothing is
    coverage: Tensor  # [N, R, R], 1 where a face is, then falling to 0
    depth: Tensor  # [N, R, R], z-depth, +inf where nothing is
    face: Tensor  # int64 [N, R, R], -1 where nothing is


def projected(points: Tensor, focal: float | Tensor) -> Tensor:
    """Camera coordinates [N, V, 3] (right, down, forward) -> image plane and depth [N, V, 3].

    `focal` is the focal length over the image's extent, one or [N, 1, 1].
    """
    z = points[..., 2:]
    return torch.cat([points[..., :2] * focal / z.clamp(min=NEAREST), z], dim=2)


def rasterise(
    points: Tensor,  # [N, V, 3]: x, y in the image plane, z-depth (`projected`)
    faces: Tensor,  # int64 [F, 3], either orientation
    attributes: Tensor,  # [N, F, 3, A], of each face's corners
    resolution: int,
) -> Drawn:
    """Draws every image's mesh; gradients reach points and attributes."""
    centres = pixel_centres(resolution, points.device, points.dtype)  # [R * R, 2]
    with torch.no_grad():
        face = torch.stack([_nearest_face(p[faces], centres) for p in points])  # [N, R * R]
    covered = face >= 0
    image, pixel = covered.nonzero(as_tuple=True)
    chosen = face[image, pixel]
    corners = points[image[:, None], faces[chosen]]  # [M, 3, 3]
    weights, depth = _perspective_weights(corners, centres[pixel])
    values = (weights[:, :, None] * attributes[image, chosen]).sum(dim=1)  # [M, A]
    shape = (len(points), resolution * resolution)
    drawn = values.new_zeros(*shape, attributes.shape[3]).index_put((image, pixel), values)
    depths = values.new_full(shape, torch.inf).index_put((image, pixel), depth)
    coverage = torch.where(covered, 1.0, _halo(points, faces, centres, covered))
    size = (resolution, resolution)
    return Drawn(
        attributes=drawn.transpose(1, 2).unflatten(2, size),
        coverage=coverage.unflatten(1, size),
        depth=depths.unflatten(1, size),
        face=face.unflatten(1, size),
    )


def pixel_centres(resolution: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[R * R, 2], row by row."""
    line = (torch.arange(resolution, device=device, dtype=dtype) + 0.5) / resolution - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=2).flatten(0, 1)


def _nearest_face(corners: Tensor, centres: Tensor) -> Tensor:
    """corners [F, 3, 3] -> the face under each pixel that is nearest, int64 [P], -1: none.

    Twice the area that a pixel spans with an edge is affine in the pixel, and so is 1 / z over a
    face: both are matrix products.
    """
    edges = _edge_functions(corners)  # [F, 3, 3], of (x, y, 1)
    area = edges[:, :, 2].sum(dim=1)  # the three add up to a constant
    ahead = (corners[:, :, 2] > NEAREST).all(dim=1) & (area.abs() > _TINY)
    edges = edges[ahead] / area[ahead, None, None]
    ones = torch.cat([centres, torch.ones_like(centres[:, :1])], dim=1).t()  # [3, P]
    inside = (edges @ ones).amin(dim=1) >= 0  # [F', P]
    plane = (edges / corners[ahead, :, 2:]).sum(dim=1)  # 1 / z as a function of (x, y, 1)
    nearness = torch.where(inside, plane @ ones, -torch.inf)
    if not len(nearness):
        return torch.full((len(centres),), -1, device=centres.device)
    best, index = nearness.max(dim=0)
    return torch.where(best > -torch.inf, ahead.nonzero()[:, 0][index], -1)


def _edge_functions(corners: Tensor) -> Tensor:
    """[F, 3, 3+] -> [F, 3, 3]: row i gives twice the area of (pixel, corners i + 1 and i + 2)."""
    a, b = corners.roll(-1, dims=1)[..., :2], corners.roll(-2, dims=1)[..., :2]
    constant = a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]
    return torch.stack([a[..., 1] - b[..., 1], b[..., 0] - a[..., 0], constant], dim=2)


def _perspective_weights(corners: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """corners [M, 3, 3], pixels [M, 2] -> weights of the corners [M, 3] and depth [M]."""
    edges = _edge_functions(corners)
    flat = edges[..., 0] * pixels[:, None, 0] + edges[..., 1] * pixels[:, None, 1] + edges[..., 2]
    area = flat.sum(dim=1, keepdim=True)
    flat = flat / torch.where(area.abs() > _TINY, area, _TINY)
    over_z = flat / corners[..., 2]
    total = over_z.sum(dim=1, keepdim=True)
    return over_z / total, 1 / total[:, 0]


def _halo(points: Tensor, faces: Tensor, centres: Tensor, covered: Tensor) -> Tensor:
    """Coverage of the pixels beside the object, [N, P]; 0 where no face is near."""
    with torch.no_grad():
        image, face, pixel = _near_pairs(points, faces, centres, covered)
    corners = points[image[:, None], faces[face]][..., :2]  # [M, 3, 2]
    squared = _squared_distance(corners, centres[pixel]) * 4  # of half images
    miss = (1 - torch.exp(-SHARPNESS * squared)).clamp(min=1e-6).log()
    kept = torch.zeros_like(covered, dtype=points.dtype).index_put(
        (image, pixel), miss, accumulate=True
    )
    return 1 - kept.exp()


def _near_pairs(
    points: Tensor, faces: Tensor, centres: Tensor, covered: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Faces ahead and uncovered pixels within REACH of their boxes: image, face and pixel, [M]."""
    found = []
    for i, corners in enumerate(points[:, faces]):  # [F, 3, 3]
        low = corners[..., :2].amin(dim=1) - REACH / 2
        high = corners[..., :2].amax(dim=1) + REACH / 2
        ahead = (corners[..., 2] > NEAREST).all(dim=1)
        free = (~covered[i]).nonzero()[:, 0]
        p = centres[free]
        near = (p >= low[:, None]).all(dim=2) & (p <= high[:, None]).all(dim=2) & ahead[:, None]
        face, pixel = near.nonzero(as_tuple=True)
        found.append((torch.full_like(face, i), face, free[pixel]))
    image, face, pixel = (torch.cat(parts) for parts in zip(*found, strict=True))
    return image, face, pixel


def _squared_distance(corners: Tensor, pixels: Tensor) -> Tensor:
    """From pixels [M, 2] outside of the triangles [M, 3, 2] to their nearest edges, [M]."""
    start, end = corners, corners.roll(-1, dims=1)
    along, offset = end - start, pixels[:, None] - start  # [M, 3, 2]
    length = along.square().sum(dim=2).clamp(min=_TINY)
    t = ((offset * along).sum(dim=2) / length).clamp(0, 1)
    return (offset - t[..., None] * along).square().sum(dim=2).amin(dim=1)
