"""The renderer's labels are exact: each is compared with an independent derivation."""

import dataclasses
import math

import torch
from torch import Tensor

from examples.demo.render import keypoints_of, pixel_centers, render, trace
from examples.demo.scene import (
    BACKGROUND,
    CLASS_NAMES,
    EYE,
    FOCAL,
    GLASSES,
    HAIR,
    KEYPOINT_NAMES,
    MOUTH,
    NOSE,
    PUPIL,
    SKIN,
    WALL_DEPTH,
    Scene,
    scene_from_latents,
)
from examples.demo.solids import (
    HAIR_PLANE,
    HAIR_SOLID,
    HEAD_DEPTH,
    HEAD_HEIGHT,
    camera_of,
    landmarks_of,
    solids_of,
)
from tests.examples.test_scene import drawn, scenes

RESOLUTION = 64


def test_the_camera_axes_are_orthonormal_and_face_the_head() -> None:
    camera = camera_of(scenes(16))
    axes = torch.stack([camera.right, camera.up, camera.forward], dim=1)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(16, 3, 3), atol=1e-6, rtol=0)
    # A right-handed triple of right, up and backward: nothing is mirrored.
    torch.testing.assert_close(
        torch.linalg.cross(camera.right, camera.up), -camera.forward, atol=1e-6, rtol=0
    )


def rays_of(scene: Scene, resolution: int) -> Tensor:
    """Directions [N, R, R, 3] of the pixels' rays, with length 1 along the optical axis."""
    camera = camera_of(scene)
    x, y = (plane[..., None] / FOCAL for plane in pixel_centers(resolution))
    forward, right, up = (axis[:, None, None] for axis in (camera.forward, camera.right, camera.up))
    return forward + x * right - y * up


def is_solid(scene: Scene, points: Tensor) -> Tensor:
    """Whether points [N, P, 3] are inside any solid, bool [N, P], from the definitions alone."""
    solids = solids_of(scene)
    offset = (points[:, :, None] - solids.center[:, None]) / solids.radii[:, None]
    inside = offset.square().sum(-1) < 1
    tilt = [torch.full_like(scene.parting, v) for v in HAIR_PLANE]
    normal = torch.stack([scene.parting, *tilt], dim=1)
    inside[..., HAIR_SOLID] &= (points * normal[:, None]).sum(-1) > scene.hairline[:, None]
    worn = torch.tensor([m == GLASSES for m in solids.material])
    return (inside & (~worn | scene.glasses[:, None, None])).any(-1)


def test_depth_is_where_a_march_along_the_ray_first_enters_a_solid() -> None:
    scene, step, size = scenes(24, seed=3), 0.01, 16
    assert scene.glasses.any()
    camera, rays = camera_of(scene), rays_of(scene, size).flatten(1, 2)
    marched = torch.full(rays.shape[:2], WALL_DEPTH)
    for t in torch.arange(4.0, WALL_DEPTH, step).flip(0):
        found = is_solid(scene, camera.position[:, None] + t * rays)
        marched = torch.where(found, t, marched)
    exact = render(scene, size, 1).depth.flatten(1)
    # Slivers thinner than a step slip through the march; nothing else may differ.
    agree = (marched - exact).abs() <= step * 1.01
    assert agree.float().mean() > 0.997
    assert (marched < WALL_DEPTH).float().mean() > 0.4


def test_background_is_exactly_where_the_depth_is_the_walls() -> None:
    truth = render(scenes(32), RESOLUTION, 1)
    assert torch.equal(truth.mask == BACKGROUND, truth.depth == WALL_DEPTH)


def test_the_head_is_outlined_by_its_tangent_cone() -> None:
    """The outline of an ellipsoid is where rays touch it: (o.d)^2 = (d.d)(o.o - 1), scaled."""
    scene = scenes(8)
    camera = camera_of(scene)
    radii = torch.stack(
        [
            scene.head_width,
            torch.full_like(scene.azimuth, HEAD_HEIGHT),
            torch.full_like(scene.azimuth, HEAD_DEPTH),
        ],
        dim=1,
    )
    rays = rays_of(scene, RESOLUTION) / radii[:, None, None]
    origin = (camera.position / radii)[:, None, None].expand_as(rays)
    touched = (origin * rays).sum(-1).square() > rays.square().sum(-1) * (
        origin.square().sum(-1) - 1
    )
    # Within the head's outline nothing can be background.
    mask = render(scene, RESOLUTION, 1).mask
    assert not (touched & (mask == BACKGROUND)).any()
    # And the face's own paint stays inside it.
    painted = (mask == EYE) | (mask == PUPIL) | (mask == MOUTH)
    assert not (painted & ~touched).any()


def test_keypoints_project_onto_their_part() -> None:
    scene = scenes(256)
    truth = render(scene, RESOLUTION, 1)
    allowed = {
        "left_pupil": {PUPIL, EYE},  # a lid may cover the pupil's center at a strong gaze
        "right_pupil": {PUPIL, EYE},
        "nose_tip": {NOSE},
        "mouth_left": {MOUTH},
        "mouth_right": {MOUTH},
        "chin": {SKIN, HAIR},
        "left_ear": {SKIN},
        "right_ear": {SKIN},
    }
    x = truth.keypoints[..., 0] / RESOLUTION - 0.5
    y = truth.keypoints[..., 1] / RESOLUTION - 0.5
    part = trace(scene, x[:, None], y[:, None]).part[:, 0]
    for k, name in enumerate(KEYPOINT_NAMES):
        if name.endswith("ear"):
            continue  # the outer pole lies on the outline, where a ray may just miss
        seen = truth.keypoints[:, k, 2] == 1
        assert seen.float().mean() > 0.5, name
        assert set(part[seen, k].tolist()) <= allowed[name], name


def test_keypoints_are_the_landmarks_through_a_pinhole() -> None:
    scene = scenes(16)
    camera, points = camera_of(scene), landmarks_of(scene)
    rotation = torch.stack([camera.right, -camera.up, camera.forward], dim=1)
    seen_from = (points - camera.position[:, None]) @ rotation.mT
    focal_px = FOCAL * RESOLUTION
    expected = seen_from[..., :2] / seen_from[..., 2:] * focal_px + RESOLUTION / 2
    torch.testing.assert_close(
        keypoints_of(scene, RESOLUTION)[..., :2], expected, atol=1e-3, rtol=0
    )


def test_glasses_hide_the_pupils() -> None:
    scene = scenes(256)
    points = keypoints_of(scene, RESOLUTION)
    front = scene.azimuth.abs() < math.radians(20)
    assert (scene.glasses & front).any()
    assert (points[scene.glasses & front, :2, 2] == 0).all()
    assert (points[~scene.glasses & front, :2, 2] == 1).all()


def test_left_is_the_subjects_left() -> None:
    z = drawn(64)
    points = keypoints_of(scene_from_latents(z, z), RESOLUTION)
    left, right = KEYPOINT_NAMES.index("left_ear"), KEYPOINT_NAMES.index("right_ear")
    # The subject looks out of the image, so its left ear is on the image's right.
    assert (points[:, left, 0] > points[:, right, 0]).all()


def test_a_camera_moved_to_the_left_sees_the_left_ear() -> None:
    z = drawn(512)
    scene = scene_from_latents(z, z)
    bald = dataclasses.replace(scene, hairline=torch.full_like(scene.hairline, 2.0))
    points = keypoints_of(bald, RESOLUTION)
    turned = bald.azimuth > math.radians(25)
    assert turned.any()
    assert (points[turned, KEYPOINT_NAMES.index("right_ear"), 2] == 0).all()


def test_the_image_shows_the_color_of_the_part_under_each_pixel() -> None:
    scene = scenes(16)
    truth = render(scene, RESOLUTION, 1)  # one ray a pixel: the mask's own ray
    wall = scene.colors[:, BACKGROUND, :, None, None] * 2 - 1
    is_wall = (truth.mask == BACKGROUND)[:, None].expand_as(truth.image)
    torch.testing.assert_close(
        truth.image[is_wall], wall.clamp(-1, 1).expand_as(truth.image)[is_wall]
    )
    # Shading scales a part's color, so hues agree: compare colors of unit length.
    albedo = scene.colors[:, PUPIL]
    for n in range(len(scene)):
        shown = (truth.image[n] + 1)[:, truth.mask[n] == PUPIL]  # [3, P]
        if shown.numel():
            cosine = torch.cosine_similarity(shown, albedo[n, :, None], dim=0)
            assert cosine.min() > 0.999


def test_image_mask_and_keypoints_keep_their_place_at_any_resolution() -> None:
    scene = scenes(8)
    coarse, fine = render(scene, 32, 4), render(scene, 96, 4)
    torch.testing.assert_close(coarse.keypoints[..., :2] * 3, fine.keypoints[..., :2])
    assert torch.equal(coarse.keypoints[..., 2], fine.keypoints[..., 2])
    # The center of every coarse pixel is the center of the middle one of its 3 x 3 fine ones.
    assert torch.equal(coarse.mask, fine.mask[:, 1::3, 1::3])
    torch.testing.assert_close(coarse.depth, fine.depth[:, 1::3, 1::3], atol=1e-4, rtol=0)
    reduced = torch.nn.functional.avg_pool2d(fine.image, 3)
    assert (coarse.image - reduced).abs().mean() < 0.01


def test_a_scene_is_rendered_alike_alone_and_in_a_batch() -> None:
    z = drawn(12)
    together = render(scene_from_latents(z, z), RESOLUTION, 2)
    for i in (0, 5, 11):
        alone = render(scene_from_latents(z[i : i + 1], z[i : i + 1]), RESOLUTION, 2)
        torch.testing.assert_close(alone.image[0], together.image[i], atol=1e-4, rtol=0)
        assert (alone.mask[0] != together.mask[i]).float().mean() < 1e-3


def test_every_part_is_generously_big() -> None:
    scene = scenes(256)
    mask = render(scene, RESOLUTION, 1).mask.long()
    counts = torch.nn.functional.one_hot(mask, len(CLASS_NAMES)).sum(dim=(1, 2)).float()
    bare = ~scene.glasses
    # An area of 28 px is a disc of radius 3 px.
    for part in (EYE, PUPIL, NOSE, MOUTH):
        assert counts[bare, part].median() > 28, CLASS_NAMES[part]
    assert counts[scene.glasses, GLASSES].min() > 28
    assert (counts[~scene.glasses, GLASSES] == 0).all()


def test_shapes_types_and_ranges_are_the_declared_ones() -> None:
    truth = render(scenes(3), 32, 2)
    assert truth.image.shape == (3, 3, 32, 32) and truth.image.dtype == torch.float32
    assert truth.mask.shape == (3, 32, 32) and truth.mask.dtype == torch.uint8
    assert truth.keypoints.shape == (3, len(KEYPOINT_NAMES), 3)
    assert truth.depth.shape == (3, 32, 32) and truth.depth.dtype == torch.float32
    assert truth.image.abs().max() <= 1
    assert all(torch.isfinite(t).all() for t in (truth.image, truth.keypoints, truth.depth))
