"""Rendered meshes appear where the camera geometry puts them, with the right texture."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.demo.scene import Z_DIM, scene_from_latents
from examples.demo.solids import camera_of, landmarks_of
from nets.mesh import icosphere, vertex_normals
from nets.rasteriser import pixel_centers, projected, rasterise
from nets.textured import Cameras, camera_axes, seen_from, sphere_uv, texture_at


def cameras(azimuths: list[float], elevation: float = 0.0) -> Cameras:
    azimuth = torch.tensor(azimuths)
    one = torch.ones_like(azimuth)
    return Cameras(azimuth, elevation * one, 6.0 * one, 2.4 * one)


def test_cameras_are_those_of_the_view_bank() -> None:
    """The demo's renderer knows its cameras exactly, in the angles of the view bank."""
    z = torch.randn(5, Z_DIM, generator=torch.Generator().manual_seed(3))
    scene = scene_from_latents(z, z)
    camera, points = camera_of(scene), landmarks_of(scene)
    offset = points - camera.position[:, None]
    axes = torch.stack([camera.right, camera.up, -camera.forward], dim=2)
    one = torch.ones(5)
    ours = camera_axes(points, Cameras(scene.azimuth, scene.elevation, 6 * one, 2.4 * one))
    torch.testing.assert_close(ours, offset @ axes, rtol=0, atol=1e-5)


def test_texture_coordinates_go_round_once_and_cut_no_face() -> None:
    sphere, faces = icosphere()
    uv = sphere_uv(sphere, faces).double()
    assert uv.isfinite().all() and uv.min() >= 0 and uv[..., 1].max() <= 1
    assert (uv[..., 0].amax(dim=1) - uv[..., 0].amin(dim=1)).max() < 0.25
    away = (2 * math.pi * (uv[..., 0] - 0.5), math.pi * uv[..., 1])
    back = torch.stack(
        [away[0].sin() * away[1].sin(), away[1].cos(), away[0].cos() * away[1].sin()], dim=2
    )
    assert (back - sphere.double()[faces]).abs().max() < 1e-5  # poles have any u


def test_a_texture_repeats_round_the_object_and_ends_at_the_poles() -> None:
    texture = torch.rand(1, 3, 4, 8)
    u = torch.tensor([[-0.75, 0.25, 1.25, 0.0, 1.0]])
    got = texture_at(texture, torch.stack([u, torch.full_like(u, 0.5)], dim=1)[:, :, None])
    torch.testing.assert_close(got[..., 0], got[..., 1])
    torch.testing.assert_close(got[..., 1], got[..., 2])
    torch.testing.assert_close(got[..., 3], got[..., 4])
    ends = texture[:, :, 1:3, [0, 7]].mean(dim=(2, 3))  # the seam lies between the last and first
    torch.testing.assert_close(got[:, :, 0, 3], ends)
    v = torch.tensor([[0.0, 1.0]])
    poles = texture_at(texture, torch.stack([torch.full_like(v, 3 / 16), v], dim=1)[:, :, None])
    torch.testing.assert_close(poles[0, :, 0], texture[0, :, [0, 3], 1])


def test_left_and_right_and_above_are_where_the_object_has_them() -> None:
    """Seen from the front, the object's left is on the right; a camera to its left sees that."""
    sphere, faces = icosphere()
    marks = torch.zeros(1, 3, 32, 64)
    marks[:, 0, :, 36:60] = 1  # u above 0.5: its left
    marks[:, 1, :12] = 1  # its top
    seen = seen_from(
        sphere.expand(2, -1, -1), faces, sphere_uv(sphere, faces), marks.expand(2, -1, -1, -1),
        cameras([0.0, math.pi / 2]), 48,
    )  # fmt: skip
    assert seen.color[0, 0, 24, 38] > 0.9 and seen.color[0, 0, 24, 12] == 0
    assert seen.color[1, 0, 24, 24] > 0.9
    assert seen.color[0, 1, 8, 24] > 0.9 and seen.color[0, 1, 40, 24] == 0
    assert seen.normals[0, :, 24, 24].tolist() == pytest.approx([0, 0, 1], abs=0.1)
    assert seen.normals[0, 0, 24, 38] > 0.5 and seen.normals[0, 1, 10, 24] > 0.5
    outside = seen.face[0] < 0
    assert (seen.color[0][:, outside] == 0).all() and (seen.normals[0][:, outside] == 0).all()


def test_light_falls_along_the_cameras_axes() -> None:
    sphere, faces = icosphere()
    gray = torch.full((1, 3, 4, 8), 0.5)
    light = torch.tensor([[0.6, 0.4, 0.0, 0.0]])  # from the right
    seen = seen_from(sphere[None], faces, sphere_uv(sphere, faces), gray, cameras([0.7]), 48, light)
    expected = 0.5 * (0.6 + 0.4 * seen.normals[0, 0])
    there = seen.face[0] >= 0
    torch.testing.assert_close(seen.color[0, 1][there], expected[there])


def test_vertex_normals_of_a_sphere_are_its_radii() -> None:
    sphere, faces = icosphere()
    assert (F.cosine_similarity(vertex_normals(sphere[None], faces)[0], sphere) > 0.999).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_face_of_each_pixel_is_that_of_looking_at_every_face(seed: int) -> None:
    """Triangles of any size and place: beyond the image, behind the camera, without area."""
    random = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 60, 3, generator=random) * torch.tensor([6.0, 6.0, 6.0])
    points -= torch.tensor([3.0, 3.0, 1.0])
    points[:, :20, :2] *= 0.2
    points[:, 20:24, :2] *= 20.0
    points[:, 5] = points[:, 4]
    faces = torch.cat(
        [torch.randint(20, (40, 3), generator=random), torch.randint(60, (20, 3), generator=random)]
    )
    on_plane = projected(points, 1.1).double()
    drawn = rasterise(on_plane, faces, torch.zeros(2, 60, 3, 1).double(), 24)
    for image in range(2):
        expected = by_looking_at_every_face(on_plane[image][faces], 24)
        assert torch.equal(drawn.face[image].flatten(), expected)
    assert (drawn.face >= 0).any() and (drawn.face < 0).any()


def by_looking_at_every_face(corners: Tensor, resolution: int) -> Tensor:
    """Nearest face of every pixel, from barycentric coordinates solved for every face."""
    centers = pixel_centers(resolution, corners.device, corners.dtype)
    best = torch.full((len(centers),), -1)
    nearest = torch.full((len(centers),), torch.inf, dtype=corners.dtype)
    right = torch.cat([centers, torch.ones_like(centers[:, :1])], dim=1).t()
    for k, (place, depth) in enumerate(zip(corners[..., :2], corners[..., 2], strict=True)):
        system = torch.cat([place, torch.ones_like(place[:, :1])], dim=1).t()
        if depth.min() <= 1e-3 or system.det().abs() <= 1e-12:
            continue
        weights = torch.linalg.solve(system, right)  # [3, P]
        away = 1 / (weights / depth[:, None]).sum(dim=0)
        nearer = (weights >= 0).all(dim=0) & (away < nearest)
        best, nearest = torch.where(nearer, k, best), torch.where(nearer, away, nearest)
    return best
