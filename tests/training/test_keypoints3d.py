"""3D keypoints come back exactly where their views are exact, and where some of them are not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nets.textured import Cameras, camera_axes
from tests.training.ellipsoids import SPHERE, around, ellipsoid, keypoints_of
from training.inverse_graphics.keypoints3d import Anchors, Keypoints3D, keypoints_on_mesh, posed
from training.inverse_graphics.pictures import ObjectShape, seen_shape
from training.inverse_graphics.rays import hits_of_rays, places_near, rays_from_keypoints

NAMES = ("front", "left", "back", "top")
HEAD = ellipsoid()


def places(seed: int = 0) -> tuple[Tensor, Anchors]:
    """Four places on the ellipsoid's faces, drawn."""
    random = np.random.default_rng(seed)
    faces = torch.from_numpy(random.integers(len(SPHERE.faces), size=len(NAMES)))
    weights = torch.from_numpy(random.dirichlet([1, 1, 1], size=len(NAMES)).astype(np.float32))
    anchors = Anchors(faces, weights)
    return anchors.on(HEAD, SPHERE.faces), anchors


def found(keypoints: Tensor, cameras: Cameras, mesh: Tensor = HEAD) -> Keypoints3D:
    return keypoints_on_mesh(NAMES, keypoints, cameras, mesh, SPHERE.faces)


@given(seed=st.integers(0, 1000), views=st.integers(3, 12))
def test_exact_views_give_exact_keypoints_and_anchors(seed: int, views: int) -> None:
    xyz, anchors = places(seed)
    cameras = around(views)
    keypoints = found(keypoints_of(xyz, cameras), cameras)
    assert torch.allclose(keypoints.xyz, xyz, atol=1e-4)
    assert keypoints.by_rays.all() and (keypoints.views == views).all()
    assert keypoints.spread.max() < 1e-4
    assert torch.allclose(keypoints.anchors.on(HEAD, SPHERE.faces), xyz, atol=1e-4)
    near = SPHERE.faces[anchors.faces][torch.arange(4), anchors.weights.argmax(dim=1)]
    assert ((HEAD[keypoints.vertices] - xyz).norm(dim=1) <= (HEAD[near] - xyz).norm(dim=1)).all()


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_units_do_not_matter(unit: float) -> None:
    xyz, _ = places()
    cameras = around(8)
    large = Cameras(cameras.azimuth, cameras.elevation, cameras.distance * unit, cameras.focal)
    for some in (slice(0, 8), slice(0, 1)):
        seen = keypoints_of(xyz, cameras)[some]
        one = found(seen, cameras[some])
        other = found(seen, large[some], HEAD * unit)
        assert torch.allclose(other.xyz / unit, one.xyz, atol=1e-4)
        assert torch.equal(other.views, one.views)
        there = other.anchors.on(HEAD, SPHERE.faces)
        assert torch.allclose(there, one.anchors.on(HEAD, SPHERE.faces), atol=1e-4)


@given(seed=st.integers(0, 1000), wrong=st.integers(0, 7))
def test_a_wrong_view_is_left_out(seed: int, wrong: int) -> None:
    xyz, _ = places(seed)
    cameras = around(8)
    keypoints = keypoints_of(xyz, cameras)
    random = np.random.default_rng(seed)
    keypoints[wrong, :, :2] = torch.from_numpy(random.uniform(-0.4, 0.4, (4, 2)))
    assert torch.allclose(found(keypoints, cameras).xyz, xyz, atol=5e-3)


def test_views_that_hide_a_keypoint_may_take_it_for_its_mirror_image() -> None:
    xyz = torch.tensor([[0.78, 0.1, 0.0], [-0.78, 0.1, 0.0]])
    cameras = around(9)
    true, swapped = keypoints_of(xyz, cameras), keypoints_of(xyz.flip(0), cameras)
    hidden = (xyz[None] * 3 * torch.stack([cameras.azimuth.sin()] * 3, dim=1)[:, None])[..., 0] < 0
    assert hidden.sum() == 8  # of 18: nearly half
    seen = torch.where(hidden[..., None], swapped, true)
    keypoints = keypoints_on_mesh(("l", "r"), seen, cameras, HEAD, SPHERE.faces)
    assert torch.allclose(keypoints.xyz, xyz, atol=5e-3)


def test_a_mesh_that_is_a_little_wrong_does_no_harm() -> None:
    xyz, _ = places()
    keypoints = found(keypoints_of(xyz, around(8)), around(8), ellipsoid(0.7, 1.1, 0.7))
    assert torch.allclose(keypoints.xyz, xyz, atol=1e-4)


@pytest.mark.parametrize("views", [1, 3])
def test_views_from_one_place_tell_the_depth_by_the_mesh(views: int) -> None:
    front = Cameras(*(part.expand(views) for part in vars(around(1)).values()))
    face = int((HEAD[SPHERE.faces].mean(dim=1) @ torch.tensor([0.0, 0.2, 1.0])).argmax())
    xyz = HEAD[SPHERE.faces[face]].mean(dim=0).expand(4, 3)
    keypoints = found(keypoints_of(xyz, front), front)
    assert not keypoints.by_rays.any() and (keypoints.views == views).all()
    assert torch.allclose(keypoints.xyz, xyz, atol=1e-4)
    assert (keypoints.anchors.faces == face).all()


def test_what_no_view_tells_is_not_known() -> None:
    xyz, _ = places()
    keypoints = keypoints_of(xyz, around(8))
    keypoints[:, 1, 2] = 0  # no confidence
    keypoints[3, 2, 0] = torch.nan
    beside = around(1)
    alone = keypoints_of(xyz, beside)
    alone[0, 2, :2] = 0.5  # one ray, past the mesh
    assert found(keypoints, around(8)).views.tolist() == [8, 0, 7, 8]
    assert found(alone, beside).views[2] == 0
    for one in (found(keypoints, around(8)), found(alone, beside)):
        assert all(
            torch.isfinite(part).all() for part in (one.xyz, one.spread, one.anchors.weights)
        )


def test_rays_hit_the_mesh_where_the_rasteriser_draws_it() -> None:
    cameras = around(5, elevation=30)
    seen = seen_shape(ObjectShape(HEAD, torch.rand(3, 4, 8)), SPHERE, cameras, 24)
    line = (torch.arange(24) + 0.5) / 24 - 0.5
    y, x = (part.flatten() for part in torch.meshgrid(line, line, indexing="ij"))
    rays = rays_from_keypoints(cameras, torch.stack([x, y], dim=1).expand(5, -1, -1))
    hits = hits_of_rays(rays, HEAD, SPHERE.faces)
    there = (seen.face >= 0).flatten(1)
    assert torch.equal(hits.there, there) and there.float().mean() > 0.2
    depth = -camera_axes(hits.xyz, cameras)[..., 2]
    assert torch.allclose(depth[there], seen.depth.flatten(1)[there], atol=1e-4)


@given(seed=st.integers(0, 1000))
def test_no_place_on_the_mesh_is_nearer_than_the_one_named(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    xyz = torch.randn(5, 3, generator=random)
    faces = SPHERE.faces[:40]
    face, weights = places_near(xyz, HEAD, faces)
    assert (weights >= 0).all() and torch.allclose(weights.sum(dim=1), torch.ones(5))
    place = Anchors(face, weights).on(HEAD, faces)
    uniform = torch.rand(40, 200, 3, generator=random).clamp(min=1e-9)  # one in 2^24 is 0
    drawn = uniform.log().neg()
    drawn = drawn / drawn.sum(dim=2, keepdim=True)
    others = torch.einsum("fnc,fcd->fnd", drawn, HEAD[faces]).flatten(0, 1)
    others = torch.cat([others, HEAD[faces].flatten(0, 1)])
    assert ((place - xyz).norm(dim=1) <= torch.cdist(xyz, others).amin(dim=1) + 1e-5).all()


def test_a_collapsed_mesh_has_nearest_places_too() -> None:
    face, weights = places_near(torch.ones(2, 3), torch.zeros(642, 3), SPHERE.faces)
    assert face.shape == (2,) and torch.isfinite(weights).all()


def test_posing_moves_keypoints_where_they_are_wanted_and_the_rest_smoothly() -> None:
    anchors = anchored([[0.8, 0, 0], [-0.8, 0, 0], [0, 1, 0]])
    start = anchors.on(HEAD, SPHERE.faces)
    wanted = start + torch.tensor([[0.3, 0, 0], [0, 0, 0], [0, 0, 0]])
    moved = posed(HEAD, SPHERE.faces, anchors, wanted)
    assert torch.allclose(anchors.on(moved, SPHERE.faces), wanted, atol=1e-4)
    shift = (moved - HEAD).norm(dim=1)
    assert shift.max() < 0.35
    assert shift[HEAD[:, 0] > 0.6].mean() > 3 * shift[HEAD[:, 0] < -0.6].mean()


def test_posing_by_nothing_changes_nothing_and_by_one_keypoint_moves_all() -> None:
    anchors = anchored([[0, 1, 0]])
    start = anchors.on(HEAD, SPHERE.faces)
    assert torch.allclose(posed(HEAD, SPHERE.faces, anchors, start), HEAD, atol=1e-5)
    up = torch.tensor([0.0, 0.5, 0.0])
    assert torch.allclose(posed(HEAD, SPHERE.faces, anchors, start + up), HEAD + up, atol=1e-4)


def test_two_keypoints_with_one_anchor_meet_in_the_middle() -> None:
    anchors = anchored([[0, 1, 0], [0, 1, 0], [0, -1, 0]])
    start = anchors.on(HEAD, SPHERE.faces)
    wanted = start + torch.tensor([[0.2, 0, 0], [0, 0, 0], [0, 0, 0]])
    moved = posed(HEAD, SPHERE.faces, anchors, wanted)
    assert anchors.on(moved, SPHERE.faces)[0, 0] == pytest.approx(0.1, abs=0.01)


def anchored(xyz: list[list[float]]) -> Anchors:
    return Anchors(*places_near(torch.tensor(xyz, dtype=torch.float32), HEAD, SPHERE.faces))
