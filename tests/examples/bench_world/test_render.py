"""The bench world's labels are exact: each is compared with a march along its ray."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.bench_world.parts import Part, parts_and_landmarks
from examples.bench_world.render import Truth, render, render_sample, rendered
from examples.bench_world.scene import (
    CLASS_NAMES,
    EARRING,
    EYEPATCH,
    FACE,
    KEYPOINT_NAMES,
    PLASTER,
    SHIRT,
    Floats,
    scene_of_sample,
)
from examples.bench_world.shading import CASTER_RADIUS, light_on_surface, surface_of_hits
from examples.bench_world.shares import classes_of_scene
from examples.bench_world.trace import camera_of, first_hits, pixel_centers, view_of_parts

SEED = 11


def is_inside(part: Part, points: Floats) -> NDArray[np.bool_]:
    """Whether points [..., 3] are in an ellipsoid, from its definition."""
    local = (points - part.center) @ part.axes.T / part.radii
    inside: NDArray[np.bool_] = (local**2).sum(-1) < 1
    if part.cut is not None:
        normal, offset = part.cut
        inside &= points @ normal > offset
    return inside


def solid(parts: list[Part]) -> list[Part]:
    return [part for part in parts if not part.is_card]


def rays_of(index: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Position [3], and directions [n, 3] of length 1 along the optical axis."""
    camera = camera_of(scene_of_sample(SEED, index))
    return camera.position, (camera.forward + x[:, None] * camera.right + y[:, None] * camera.up)


def test_the_nearest_surface_owns_the_pixel() -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        parts, _ = parts_and_landmarks(scene_of_sample(SEED, index))
        x, y = pixel_centers(128)
        hits = first_hits(view_of_parts(camera_of(scene_of_sample(SEED, index)), parts), x, y)
        truth = render_sample(SEED, index)
        assert np.array_equal(truth.depth, hits.depth)
        rows, columns = rng.integers(0, 128, (2, 80))
        position, rays = rays_of(index, x[columns], y[rows])
        depth = hits.depth[rows, columns].astype(np.float64)
        owner = hits.part[rows, columns]
        # Nothing is in front of the hit...
        steps = np.linspace(0.6, 0.999, 160)[:, None, None] * depth[:, None]
        blocked = np.zeros(len(rows), bool)
        for part in solid(parts):
            blocked |= is_inside(part, position + steps * rays).any(0)
        assert not blocked.any()
        # ... and the owner begins there: its definition changes sign within a fraction of a pixel.
        for n, ellipsoid in ((n, parts[owner[n]]) for n in range(len(rows))):
            if ellipsoid.is_card:
                place = position + depth[n] * rays[n] - ellipsoid.center
                assert abs(place @ ellipsoid.axes[2]) < 1e-4
                continue
            behind = np.array([[-1e-3], [3e-4], [1e-3], [3e-3]]) + depth[n]
            inside = is_inside(ellipsoid, position + behind * rays[n])
            assert not inside[0] and inside[1:].any()


def test_the_class_of_a_pixel_is_its_owners_but_for_paint() -> None:
    for index in range(4):
        scene = scene_of_sample(SEED, index)
        parts, _ = parts_and_landmarks(scene)
        view = view_of_parts(camera_of(scene), parts)
        owner = np.array([p.class_id for p in parts])[first_hits(view, *pixel_centers(128)).part]
        truth = render(scene)
        differs = owner != truth.mask
        assert set(owner[differs]) <= {FACE, SHIRT}  # and hair under an eyepatch's band
        assert truth.instance.min() >= 1


def test_a_keypoint_is_visible_exactly_where_nothing_is_in_front_of_it() -> None:
    agree, hidden, shown = 0, 0, 0
    for index in range(14):
        scene = scene_of_sample(SEED, index)
        parts, landmarks = parts_and_landmarks(scene)
        camera, keypoints = camera_of(scene), render_sample(SEED, index).keypoints
        for place, (x, y, visible) in zip(landmarks, keypoints, strict=True):
            if place is None:
                assert (x, y, visible) == (0, 0, 0)
                continue
            steps = np.linspace(0.6, 0.9985, 300)[:, None]
            points = camera.position + steps * (place - camera.position)
            blocked = any(is_inside(part, points).any() for part in solid(parts))
            framed = 0 <= x < 128 and 0 <= y < 128
            agree += visible == (framed and not blocked)
            hidden, shown = hidden + (not visible), shown + bool(visible)
    assert hidden > 15 and shown > 60
    # A landmark on an outline may be blocked by less than a step, or by the rim of its own part.
    assert agree >= 0.985 * (hidden + shown)


def test_a_visible_keypoint_shows_its_own_part() -> None:
    own = {
        "nose_tip": {"nose"}, "chin": {"face", "beard"}, "left_ear": {"ear"}, "right_ear": {"ear"},
        "left_eye": {"eye", "iris"}, "right_eye": {"eye", "iris"}, "left_fingertip": {"hand"},
        "right_fingertip": {"hand"}, "left_shoulder": {"sleeve"}, "left_wrist": {"arm"},
    }  # fmt: skip
    wrong = checked = 0
    for index in range(12):
        truth = render_sample(SEED, index)
        for name, (x, y, visible) in zip(KEYPOINT_NAMES, truth.keypoints, strict=True):
            if visible and name in own:
                checked += 1
                wrong += CLASS_NAMES[truth.mask[int(y), int(x)]] not in own[name]
    # The pixel's center may be beside the landmark, on a neighbor.
    assert checked > 60 and wrong < 0.04 * checked


def test_light_reaches_exactly_the_points_that_see_the_lamp() -> None:
    rng = np.random.default_rng(1)
    scene = scene_of_sample(SEED, 2)
    parts, _ = parts_and_landmarks(scene)
    view = view_of_parts(camera_of(scene), parts)
    rays = pixel_centers(64)
    hits = first_hits(view, *rays)
    surface = surface_of_hits(scene, view, hits, *rays)
    lit = light_on_surface(scene, view, hits, surface)[:, 0] > scene.ambient + 1e-4
    chosen = rng.integers(0, lit.size, 250)
    points = surface.point.T[chosen].astype(np.float64)
    way = np.linspace(0.02, 4, 160)[:, None, None] * np.array(scene.light)
    casters = [part for part in solid(parts) if part.radii.min() >= CASTER_RADIUS]
    blocked = np.zeros(len(chosen), bool)
    for part in casters:
        blocked |= is_inside(part, points + way).any(0)
    assert (lit[chosen] == ~blocked).mean() > 0.97
    assert 0.05 < blocked.mean() < 0.9


def same(a: Truth, b: Truth) -> bool:
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(Truth)
    )


def test_an_image_is_the_same_alone_and_in_any_order() -> None:
    forward = list(rendered(SEED, range(3)))
    backward = list(rendered(SEED, [2, 1, 0]))[::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], render_sample(SEED + 1, 0))


@pytest.mark.long
def test_the_number_of_processes_does_not_change_an_image() -> None:
    alone = [render_sample(SEED, i) for i in range(18)]
    assert all(same(a, b) for a, b in zip(alone, rendered(SEED, range(18), 2), strict=True))


def test_an_image_shows_no_class_that_its_scene_lacks() -> None:
    for index in range(6):
        scene = scene_of_sample(SEED, index)
        assert set(np.unique(render(scene).mask)) <= classes_of_scene(scene)


def test_rare_parts_are_seen_where_they_are_drawn() -> None:
    scene = dataclasses.replace(
        scene_of_sample(SEED, 0), azimuth=0.0, yaw=0.0, hands=(), strands=(), hair_length=0.0,
        beard=0.0, glasses=0.0, earrings=True, eyepatch=1, plaster=-1,
    )  # fmt: skip
    mask = render(scene).mask
    assert all((mask == part).sum() >= 12 for part in (EARRING, EYEPATCH, PLASTER))
    bare = render(dataclasses.replace(scene, earrings=False, eyepatch=0, plaster=0)).mask
    assert not np.isin(bare, (EARRING, EYEPATCH, PLASTER)).any()


def test_shapes_types_and_ranges_are_the_declared_ones() -> None:
    truth = render_sample(2**64 - 1, 2**64 - 1, 32)
    assert truth.image.shape == truth.albedo.shape == (32, 32, 3)
    assert truth.mask.shape == truth.instance.shape == truth.depth.shape == (32, 32)
    assert truth.keypoints.shape == (len(KEYPOINT_NAMES), 3)
    assert np.isfinite(truth.depth).all() and truth.depth.min() > 3
    with pytest.raises(ValueError, match="index"):
        render_sample(0, -1)
