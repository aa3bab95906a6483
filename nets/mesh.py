"""The sphere that inverse graphics deforms, mesh normals, and measures of a deformed mesh.

Meshes have V vertices and F triangular faces; `faces` is int64 [F, 3].
"""

import math

import torch
from torch import Tensor

SUBDIVISIONS = 3  # an icosahedron subdivided three times has 642 vertices and 1280 faces


def icosphere(subdivisions: int = SUBDIVISIONS) -> tuple[Tensor, Tensor]:
    """Unit sphere: vertices float32 [V, 3], faces int64 [F, 3] with outward normals."""
    g = (1 + math.sqrt(5)) / 2
    vertices = [(-1.0, g, 0.0), (1.0, g, 0.0), (-1.0, -g, 0.0), (1.0, -g, 0.0)]
    vertices += [(z, x, y) for x, y, z in vertices] + [(y, z, x) for x, y, z in vertices]
    points = torch.tensor(vertices, dtype=torch.float64)
    apart = torch.cdist(points, points)
    near = (apart > 0) & (apart < 2.1)  # edges have length 2
    triples = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    faces = outward(points, torch.tensor(triples))
    points = points / points.norm(dim=1, keepdim=True)
    for _ in range(subdivisions):
        points, faces = _subdivided(points, faces)
    return points.float(), faces


def outward(points: Tensor, faces: Tensor) -> Tensor:
    """Faces of a star-shaped mesh around the origin, reversed where the normal points inwards."""
    a, b, c = points[faces].unbind(dim=1)
    inward: Tensor = (torch.linalg.cross(b - a, c - a) * a).sum(dim=1) < 0
    turned: Tensor = torch.where(inward[:, None], faces.flip(1), faces)
    return turned


def edges_of_faces(faces: Tensor) -> Tensor:
    """Every edge once, int64 [E, 2], the vertex with the smaller number first."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges: Tensor = torch.unique(pairs.sort(dim=1).values, dim=0)
    return edges


def face_pairs(faces: Tensor) -> Tensor:
    """The two faces at each edge of a closed surface, int64 [E, 2]."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    _, edge = torch.unique(pairs, dim=0, return_inverse=True)
    owner = torch.arange(len(faces)).repeat(3)
    return owner[edge.argsort(stable=True)].view(-1, 2)


def laplacian(points: Tensor, edges: Tensor) -> Tensor:
    """Vertices [N, V, 3] -> each vertex less the mean of its neighbors, [N, V, 3]."""
    start, end = torch.cat([edges, edges.flip(1)]).unbind(dim=1)
    total = torch.zeros_like(points).index_add(1, start, points[:, end])
    count = torch.zeros(points.shape[1], device=points.device, dtype=points.dtype)
    count = count.index_add(0, start, torch.ones_like(start, dtype=points.dtype))
    return points - total / count[:, None]


def normals(points: Tensor, faces: Tensor) -> Tensor:
    """Vertices [N, V, 3] -> unit normals of the faces, [N, F, 3]."""
    a, b, c = points[:, faces].unbind(dim=2)
    normal = torch.linalg.cross(b - a, c - a)
    unit: Tensor = normal / normal.norm(dim=2, keepdim=True).clamp(min=1e-12)
    return unit


def vertex_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Vertices [N, V, 3] -> unit normals [N, V, 3]: means of their faces' normals, by area."""
    a, b, c = points[:, faces].unbind(dim=2)
    normal = torch.linalg.cross(b - a, c - a)  # its length is twice the face's area
    total = torch.zeros_like(points)
    for corner in faces.unbind(dim=1):
        total = total.index_add(1, corner, normal)
    unit: Tensor = total / total.norm(dim=2, keepdim=True).clamp(min=1e-12)
    return unit


def flatness(points: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """Mean of (1 - cos)^2 over the angles between neighboring faces, [N]; 0 for a plane.

    pairs: int64 [E, 2] of `face_pairs`.
    """
    normal = normals(points, faces)
    cosine = (normal[:, pairs[:, 0]] * normal[:, pairs[:, 1]]).sum(dim=2)
    return (1 - cosine).square().mean(dim=1)


def turned_inside_out(points: Tensor, faces: Tensor) -> Tensor:
    """Share of faces [N] that have no area or whose normal points to the center of the mesh."""
    center = points.mean(dim=1, keepdim=True)
    a, b, c = (points - center)[:, faces].unbind(dim=2)
    normal: Tensor = torch.linalg.cross(b - a, c - a)
    return ((normal * (a + b + c)).sum(dim=2) <= 1e-9).float().mean(dim=1)


def _subdivided(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Divides every face into four; new vertices are on the unit sphere."""
    edges = edges_of_faces(faces)
    middle = points[edges].mean(dim=1)
    count = len(points)
    key = edges[:, 0] * count + edges[:, 1]

    def between(a: Tensor, b: Tensor) -> Tensor:
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        return count + torch.searchsorted(key, low * count + high)

    a, b, c = faces.unbind(dim=1)
    ab, bc, ca = between(a, b), between(b, c), between(c, a)
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    points = torch.cat([points, middle / middle.norm(dim=1, keepdim=True)])
    return points, torch.cat([torch.stack(quarter, dim=1) for quarter in quarters])
