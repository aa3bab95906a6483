"""Degenerate meshes are flagged in words; sound ones are not."""

import torch

from tests.training.ellipsoids import SPHERE, ellipsoid
from training.inverse_graphics.mesh_files import (
    MeshChecks,
    MeshLimits,
    checks_of_mesh,
    flags_of_texture,
)


def checks(
    points: torch.Tensor, radius: float = 1.0, limits: MeshLimits | None = None
) -> MeshChecks:
    return checks_of_mesh(points, SPHERE, radius, limits or MeshLimits())


def test_an_ellipsoid_is_sound_in_any_unit() -> None:
    for radius in (1e-6, 1.0, 1e6):
        found = checks(ellipsoid() * radius, radius)
        assert found.finite and found.flags == () and found.inverted == 0
        assert found.box is not None and found.reach is not None
        assert torch.allclose(torch.tensor(found.box) / radius, torch.tensor([1.6, 2.0, 1.8]))
        assert abs(found.reach / radius - 1) < 1e-6
        assert found.shortest_edge is not None and found.median_edge is not None
        assert found.longest_edge is not None
        assert 0.05 < found.shortest_edge / radius < found.median_edge / radius
        assert found.median_edge / radius < found.longest_edge / radius < 0.2


def test_vertices_that_are_not_finite_are_counted() -> None:
    points = ellipsoid()
    points[3, 0], points[9, 2] = torch.nan, torch.inf
    found = checks(points)
    assert found.flags == ("2 of 642 vertices are not finite, or over 1e+06 radii away",)
    assert not found.finite and not checks(ellipsoid() * 1e30).finite
    assert (found.inverted, found.box, found.reach) == (None, None, None)


def test_a_mesh_turned_inside_out_is_flagged() -> None:
    found = checks(-ellipsoid())
    assert found.inverted == 1
    assert found.flags == ("100.0% of its faces are inverted or collapsed, over 5.0%",)


def test_a_share_of_inverted_faces_is_flagged_past_its_limit() -> None:
    points = ellipsoid()
    points[points[:, 1] > 0.8] *= torch.tensor([1.0, -0.5, 1.0])  # the crown is pushed through
    share = checks(points).inverted
    assert share is not None and 0 < share < 0.5
    assert checks(points, limits=MeshLimits(inverted=share)).flags == ()
    (flag,) = checks(points, limits=MeshLimits(inverted=share * 0.99)).flags
    assert "inverted or collapsed" in flag


def test_what_is_flat_collapsed_spiked_or_absurd_is_flagged() -> None:
    (flat,) = checks(ellipsoid() * torch.tensor([1, 1, 0.01])).flags
    assert flat.startswith("it is flat: its bounding box is 1.6 x 2 x 0.018 radii, the shortest")
    collapsed = checks(torch.zeros(642, 3))
    assert collapsed.inverted == 1 and any("it collapsed" in flag for flag in collapsed.flags)
    spiked = ellipsoid()
    spiked[7] *= 5
    assert [flag.split(",")[0] for flag in checks(spiked).flags] == [
        "its longest edge is 27.3 times the median"
    ]
    assert any("from the origin" in flag for flag in checks(ellipsoid() * 20).flags)


def test_textures_that_are_not_finite_are_flagged() -> None:
    texture = torch.rand(3, 4, 8)
    assert flags_of_texture(texture) == ()
    texture[0, 0, 0] = torch.nan
    assert flags_of_texture(texture) != ()
