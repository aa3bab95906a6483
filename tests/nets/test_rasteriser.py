"""Rasterised meshes are where geometry puts them, and their gradients are finite differences."""

import math

import pytest
import torch
from torch import Tensor

from nets.mesh import (
    edges_of_faces,
    face_pairs,
    flatness,
    icosphere,
    laplacian,
    normals,
    turned_inside_out,
)
from nets.rasteriser import Drawn, pixel_centers, projected, rasterise

FOCAL, DISTANCE, RADIUS = 1.2, 4.0, 1.0


def drawn_sphere(resolution: int, subdivisions: int = 3) -> Drawn:
    points, faces = icosphere(subdivisions)
    camera = RADIUS * points.double()[None] + torch.tensor([0.3, -0.2, DISTANCE])
    corners = camera[:, faces]
    return rasterise(projected(camera, FOCAL), faces, corners, resolution)


def exact_sphere(resolution: int) -> tuple[Tensor, Tensor]:
    """Whether each pixel's ray hits the sphere, and the z-depth where it does."""
    p = pixel_centers(resolution, torch.device("cpu"), torch.float64)
    ray = torch.cat([p / FOCAL, torch.ones_like(p[:, :1])], dim=1)
    center = torch.tensor([0.3, -0.2, DISTANCE], dtype=torch.float64)
    a, b = ray.square().sum(dim=1), ray @ center
    root = b * b - a * (center @ center - RADIUS**2)
    t = (b - root.clamp(min=0).sqrt()) / a
    size = (resolution, resolution)
    return (root > 0).view(size), t.view(size)


def test_a_spheres_silhouette_and_depth_are_the_exact_ones() -> None:
    drawn, (hit, depth) = drawn_sphere(128), exact_sphere(128)
    covered = drawn.face[0] >= 0
    both, either = (covered & hit).sum(), (covered | hit).sum()
    assert both / either > 0.98 and not (covered & ~hit).any()  # the mesh lies within the ball
    assert (drawn.depth[0][covered] - depth[covered]).abs().max() < 0.1  # at the rim
    assert (drawn.depth[0][covered] - depth[covered]).abs().mean() < 0.01
    assert (drawn.coverage[0][covered] == 1).all() and torch.isinf(drawn.depth[0][~covered]).all()


def test_attributes_are_interpolated_in_space_and_not_on_the_screen() -> None:
    """Corners carry their own positions: every pixel must get the point that projects to it."""
    drawn = drawn_sphere(32)
    covered = drawn.face[0] >= 0
    point = drawn.attributes[0][:, covered].t()
    center = pixel_centers(32, torch.device("cpu"), torch.float64).view(32, 32, 2)[covered]
    torch.testing.assert_close(point[:, :2] * FOCAL / point[:, 2:], center, rtol=0, atol=1e-9)
    torch.testing.assert_close(point[:, 2], drawn.depth[0][covered])


def test_the_nearer_of_two_faces_is_seen_whatever_their_order_and_orientation() -> None:
    near = torch.tensor([[-0.3, -0.3, 2.0], [0.3, -0.3, 2.0], [0.0, 0.4, 2.0]])
    far = near * torch.tensor([1.5, 1.5, 1.5])
    points = torch.cat([far, near])[None].double()
    for faces in ([[0, 1, 2], [3, 4, 5]], [[0, 2, 1], [5, 4, 3]]):
        drawn = rasterise(points, torch.tensor(faces), torch.zeros(1, 2, 3, 1).double(), 16)
        assert drawn.face[0, 7, 8] == 1 and drawn.depth[0, 7, 8] == pytest.approx(2)
        assert (drawn.face[0] == 0).any()


def test_faces_behind_the_camera_are_not_drawn() -> None:
    points = torch.tensor([[[-0.3, -0.3, -2.0], [0.3, -0.3, 2.0], [0.0, 0.4, 2.0]]])
    drawn = rasterise(points, torch.tensor([[0, 1, 2]]), torch.zeros(1, 1, 3, 1), 16)
    assert (drawn.face == -1).all() and (drawn.coverage == 0).all()


def test_coverage_beside_a_face_is_the_formulas() -> None:
    corners = [[-0.2, -0.2, 2.0], [0.2, -0.2, 2.0], [0.0, 0.2, 2.0]]
    points = torch.tensor([corners], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    drawn = rasterise(points, faces, torch.zeros(1, 1, 3, 1).double(), 200)
    centers = pixel_centers(200, points.device, points.dtype).view(200, 200, 2)
    column = 100
    above = [(row, -0.2 - float(centers[row, column, 1])) for row in range(55, 60)]
    for row, distance in above:
        expected = math.exp(-7000 * (2 * distance) ** 2) if 2 * distance <= 0.02 else 0
        assert drawn.coverage[0, row, column] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_finite_differences(seed: int) -> None:
    torch.manual_seed(seed)
    points, faces = icosphere(1)
    base = points.double() * (1 + 0.2 * torch.randn(len(points), 1).double())
    shift = torch.tensor([0.1, 0.05, 3.5]).double()
    colors = torch.rand(1, len(faces), 3, 2).double()
    weights = torch.randn(4, 24, 24).double()

    def value(vertices: Tensor, corner_colors: Tensor) -> tuple[Tensor, Tensor]:
        drawn = rasterise(projected((vertices + shift)[None], FOCAL), faces, corner_colors, 24)
        depth = torch.where(drawn.face[0] >= 0, drawn.depth[0], 0)
        shown = torch.cat([drawn.attributes[0], drawn.coverage, depth[None]])
        return (shown * weights).sum(), drawn.face

    vertices = base.clone().requires_grad_()
    corner_colors = colors.clone().requires_grad_()
    total, seen = value(vertices, corner_colors)
    total.backward()
    assert vertices.grad is not None and corner_colors.grad is not None
    compared = 0
    for k in torch.randperm(len(points))[:14].tolist():
        for axis in range(3):
            moved = torch.zeros_like(base)
            moved[k, axis] = 1e-6
            (high, face_high), (low, face_low) = (value(base + m, colors) for m in (moved, -moved))
            if not (torch.equal(face_high, seen) and torch.equal(face_low, seen)):
                continue  # a pixel changed its face: there is no derivative
            slope = (high - low).item() / 2e-6
            assert vertices.grad[k, axis].item() == pytest.approx(slope, rel=1e-4, abs=1e-4)
            compared += 1
    assert compared >= 20
    step = torch.zeros_like(colors)
    step.view(-1)[7::31] = 1e-6
    slope = ((value(base, colors + step)[0] - value(base, colors - step)[0]) / 2e-6).item()
    assert (corner_colors.grad * step).sum().item() / 1e-6 == pytest.approx(slope, rel=1e-6)


def test_the_sphere_is_closed_round_and_turned_outwards() -> None:
    points, faces = icosphere()
    assert points.shape == (642, 3) and faces.shape == (1280, 3)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(642))
    edges = edges_of_faces(faces)
    assert len(points) - len(edges) + len(faces) == 2  # Euler
    pairs = face_pairs(faces)
    assert len(pairs) == len(edges)
    shared = [len(set(faces[a].tolist()) & set(faces[b].tolist())) for a, b in pairs.tolist()]
    assert shared == [2] * len(pairs)
    outwards = (normals(points[None], faces)[0] * points[faces].mean(dim=1)).sum(dim=1)
    assert (outwards > 0.9).all()


def test_regularity_is_measured_where_it_is_broken() -> None:
    points, faces = icosphere()
    edges, pairs = edges_of_faces(faces), face_pairs(faces)
    spiky = points.clone()
    spiky[5] *= 2
    inside_out = points * torch.tensor([1.0, 1.0, -1.0])
    both = torch.stack([points, spiky])
    assert laplacian(both, edges)[1, 5].norm() > 5 * laplacian(both, edges)[0, 5].norm()
    assert flatness(both, faces, pairs)[1] > 2 * flatness(both, faces, pairs)[0]
    assert turned_inside_out(torch.stack([points, inside_out]), faces).tolist() == [0, 1]
