"""Triangles -> pixels, differentiably (DIB-R: Chen et al., NeurIPS 2019).

A covered pixel interpolates the attributes of its nearest face, and its coverage is 1. The coverage
of another pixel is 1 - prod over faces (1 - exp(-sharpness d^2)), where d is its distance from the
face, so that a silhouette has gradients with respect to the vertices.

Image plane: x to the right, y down, both from -0.5 to 0.5 over the image. The unit of d is half the
image's side, as in DIB-R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARPNESS = 7000.0  # the value of DIB-R
REACH = 0.02  # margin around a face's bounding box where it adds coverage, in half images
NEAR_PLANE = 1e-3  # depth; faces with a vertex that is nearer are not drawn
_TINY = 1e-12


@dataclass(frozen=True)
class Drawn:
    """N images of R x R pixels."""

    attributes: Tensor  # [N, A, R, R], 0 where no face is
    coverage: Tensor  # [N, R, R], 1 where a face is, falling to 0 beside it
    depth: Tensor  # [N, R, R], z-depth, +inf where no face is
    face: Tensor  # int64 [N, R, R], -1 where no face is


def projected(points: Tensor, focal: float | Tensor) -> Tensor:
    """Camera coordinates [N, V, 3] (right, down, forward) -> image plane and depth [N, V, 3].

    focal: focal length divided by the image's side, one value or [N, 1, 1].
    """
    z = points[..., 2:]
    return torch.cat([points[..., :2] * focal / z.clamp(min=NEAR_PLANE), z], dim=2)


def rasterise(
    points: Tensor,  # [N, V, 3]: x, y in the image plane, z-depth (`projected`)
    faces: Tensor,  # int64 [F, 3], in either orientation
    attributes: Tensor,  # [N, F, 3, A], at the corners of each face
    resolution: int,
    sharpness: float = SHARPNESS,
) -> Drawn:
    """Draws N meshes into N images of `resolution` pixels; differentiable in points and attributes.

    The margin around a face is REACH at the default sharpness. It scales so that coverage at its
    end is always exp(-SHARPNESS * REACH^2) = 0.06.
    """
    centers = pixel_centers(resolution, points.device, points.dtype)  # [R * R, 2]
    shape = (len(points), resolution * resolution)
    with torch.no_grad():
        corners = points[:, faces]  # [N, F, 3, 3]
        pairs = _near_pairs(corners, resolution, REACH * (SHARPNESS / sharpness) ** 0.5)
        face = _nearest_face(corners, centers, pairs, shape)  # [N, R * R]
        covered = face >= 0
        beside = ~covered[pairs.image, pairs.pixel]
    image, pixel = covered.nonzero(as_tuple=True)
    chosen = face[image, pixel]
    corners_of_face = points[image[:, None], faces[chosen]]  # [M, 3, 3]
    weights, depth = _perspective_weights(corners_of_face, centers[pixel])
    values = (weights[:, :, None] * attributes[image, chosen]).sum(dim=1)  # [M, A]
    drawn = values.new_zeros(*shape, attributes.shape[3]).index_put((image, pixel), values)
    depths = values.new_full(shape, torch.inf).index_put((image, pixel), depth)
    halo = _halo(points, faces, centers, pairs[beside], covered, sharpness)
    size = (resolution, resolution)
    return Drawn(
        attributes=drawn.transpose(1, 2).unflatten(2, size),
        coverage=torch.where(covered, 1.0, halo).unflatten(1, size),
        depth=depths.unflatten(1, size),
        face=face.unflatten(1, size),
    )


def pixel_centers(resolution: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Image-plane coordinates of the pixel centers, [R * R, 2], row-major."""
    line = (torch.arange(resolution, device=device, dtype=dtype) + 0.5) / resolution - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=2).flatten(0, 1)


@dataclass(frozen=True)
class _Pairs:
    """M pairs of a face and a pixel in or near its bounding box, int64 [M] each."""

    image: Tensor
    face: Tensor
    pixel: Tensor

    def __getitem__(self, rows: Tensor) -> "_Pairs":
        return _Pairs(self.image[rows], self.face[rows], self.pixel[rows])


def _near_pairs(corners: Tensor, resolution: int, reach: float) -> _Pairs:
    """All pairs of a face in front of the camera and a pixel in its bounding box.

    corners: [N, F, 3, 3]. reach: margin around the box, in half images.
    """
    ahead = (corners[..., 2] > NEAR_PLANE).all(dim=2)
    low, high = corners[..., :2].amin(dim=2), corners[..., :2].amax(dim=2)
    ahead &= (low + high).isfinite().all(dim=2)
    edge = resolution - 0.5  # clamped, because coordinates far outside would overflow integers
    first = ((low - reach / 2 + 0.5) * resolution - 0.5).clamp(0, edge).ceil()
    last = ((high + reach / 2 + 0.5) * resolution - 0.5).clamp(-1, resolution - 1).floor()
    size = torch.where(ahead[:, :, None], (last - first + 1).clamp(min=0), 0.0).long()
    count = size.prod(dim=2).flatten()  # [N * F]
    owner = torch.arange(len(count), device=count.device).repeat_interleave(count)
    rank = torch.arange(len(owner), device=count.device) - (count.cumsum(0) - count)[owner]
    width = size[..., 0].flatten()[owner]
    x = first[..., 0].flatten()[owner].long() + rank % width
    y = first[..., 1].flatten()[owner].long() + rank // width
    faces = corners.shape[1]
    return _Pairs(owner // faces, owner % faces, y * resolution + x)


def _nearest_face(
    corners: Tensor, centers: Tensor, pairs: _Pairs, shape: tuple[int, int]
) -> Tensor:
    """The nearest face that covers each pixel, int64 [N, P], -1 where there is none.

    A pixel is inside a face if its areas with all three edges have the sign of the face's area.
    These areas are affine functions of the pixel's coordinates, and so is 1 / z on a face.
    """
    edges = _edge_functions(corners.flatten(0, 1)).unflatten(0, corners.shape[:2])
    area = edges[..., 2].sum(dim=2)  # the x and y terms of the three cancel
    flat = area.abs() <= _TINY
    edges = edges / torch.where(flat, torch.nan, area)[..., None, None]  # NaN: no pixel is inside
    plane = (edges / corners[..., 2:]).sum(dim=2)  # 1 / z as a function of (x, y, 1)
    ones = torch.cat([centers, torch.ones_like(centers[:, :1])], dim=1)[pairs.pixel]  # [M, 3]
    inside = (edges[pairs.image, pairs.face] * ones[:, None]).sum(dim=2).amin(dim=1) >= 0
    pairs, ones = pairs[inside], ones[inside]
    nearness = (plane[pairs.image, pairs.face] * ones).sum(dim=1)
    place = pairs.image * shape[1] + pairs.pixel
    best = nearness.new_full((shape[0] * shape[1],), -torch.inf)
    best = best.scatter_reduce(0, place, nearness, "amax")
    wins = nearness == best[place]
    none = torch.full_like(best, corners.shape[1], dtype=torch.int64)
    face = none.scatter_reduce(0, place[wins], pairs.face[wins], "amin")
    return torch.where(face < corners.shape[1], face, -1).view(shape)


def _edge_functions(corners: Tensor) -> Tensor:
    """Corners [F, 3, 2 or more] -> [F, 3, 3], affine functions of a pixel (x, y, 1).

    Row i is twice the signed area of the triangle of the pixel and corners i + 1 and i + 2.
    """
    a, b = corners.roll(-1, dims=1)[..., :2], corners.roll(-2, dims=1)[..., :2]
    constant = a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]
    return torch.stack([a[..., 1] - b[..., 1], b[..., 0] - a[..., 0], constant], dim=2)


def _perspective_weights(corners: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Corners [M, 3, 3], pixels [M, 2] -> perspective weights of the corners [M, 3], depth [M]."""
    edges = _edge_functions(corners)
    flat = edges[..., 0] * pixels[:, None, 0] + edges[..., 1] * pixels[:, None, 1] + edges[..., 2]
    area = flat.sum(dim=1, keepdim=True)
    flat = flat / torch.where(area.abs() > _TINY, area, _TINY)
    over_z = flat / corners[..., 2]
    total = over_z.sum(dim=1, keepdim=True)
    return over_z / total, 1 / total[:, 0]


def _halo(
    points: Tensor, faces: Tensor, centers: Tensor, pairs: _Pairs, covered: Tensor, sharpness: float
) -> Tensor:
    """Coverage of pixels that no face covers, [N, P]; 0 where no face is near.

    pairs: only those whose pixel is not covered. covered: bool [N, P].
    """
    corners = points[pairs.image[:, None], faces[pairs.face]][..., :2]  # [M, 3, 2]
    squared = _squared_distance(corners, centers[pairs.pixel]) * 4  # unit: half images, squared
    miss = (1 - torch.exp(-sharpness * squared)).clamp(min=1e-6).log()
    log_miss = torch.zeros_like(covered, dtype=points.dtype).index_put(
        (pairs.image, pairs.pixel), miss, accumulate=True
    )
    return 1 - log_miss.exp()


def _squared_distance(corners: Tensor, pixels: Tensor) -> Tensor:
    """Squared distance [M] of pixels [M, 2] outside triangles [M, 3, 2] from the nearest edge."""
    start, end = corners, corners.roll(-1, dims=1)
    along, offset = end - start, pixels[:, None] - start  # [M, 3, 2]
    length = along.square().sum(dim=2).clamp(min=_TINY)
    t = ((offset * along).sum(dim=2) / length).clamp(0, 1)
    return (offset - t[..., None] * along).square().sum(dim=2).amin(dim=1)
