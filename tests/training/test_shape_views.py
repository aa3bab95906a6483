"""Depth, normals and color of a shape are what geometry says, and what is beside it is marked."""

import math

import numpy as np
import torch
from torch import Tensor

from nets.textured import Cameras
from tests.training.ellipsoids import DISTANCE, FOCAL, SPHERE, around, ellipsoid
from training.inverse_graphics.pictures import (
    AZIMUTHS,
    TILE,
    ObjectShape,
    colors_of_seen,
    depth_of_seen,
    mask_of_seen,
    normals_of_seen,
    seen_shape,
    turntable,
)
from training.inverse_graphics.rays import rays_from_keypoints
from training.sheet import GAP, LINE_PX, PAPER

AXES = torch.tensor([0.8, 1.0, 0.9])
RED = ObjectShape(ellipsoid(*AXES), torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 8))


def true_depth(cameras: Cameras, resolution: int) -> Tensor:
    """z-depth of the ellipsoid by its equation, [N, R, R]; NaN beside it."""
    line = (torch.arange(resolution) + 0.5) / resolution - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    plane = torch.stack([x, y], dim=2).flatten(0, 1).expand(len(cameras), -1, -1)
    rays = rays_from_keypoints(cameras, plane)
    start, way = rays.origin / AXES, rays.direction / AXES
    a, b = (way * way).sum(2), (start * way).sum(2)
    root = (b * b - a * ((start * start).sum(2) - 1)).sqrt()  # NaN below 0
    along = 1 / (plane.square().sum(2) / FOCAL**2 + 1).sqrt()  # of the axis, per unit of the ray
    depth: Tensor = ((-b - root) / a * along).unflatten(1, (resolution, resolution))
    return depth


def test_an_ellipsoids_depth_is_its_equations() -> None:
    cameras = around(3, elevation=20)
    depth = torch.from_numpy(depth_of_seen(seen_shape(RED, SPHERE, cameras, 48)))
    true = true_depth(cameras, 48)
    both = (depth > 0) & true.isfinite()
    assert both.float().mean() > 0.2
    assert ((depth > 0) != true.isfinite()).float().mean() < 0.02  # facets lie within
    error = (depth - true)[both]
    assert error.mean().abs() < 0.01 and error.quantile(0.95) < 0.02 and error.min() > -1e-4


def test_what_is_beside_the_object_is_marked_and_finite() -> None:
    seen = seen_shape(RED, SPHERE, around(1), 32)
    depth, there, normals = depth_of_seen(seen)[0], mask_of_seen(seen)[0], normals_of_seen(seen)[0]
    assert set(np.unique(there)) == {0, 255} and there[0, 0] == 0 and there[16, 16] == 255
    assert np.isfinite(depth).all() and ((depth > 0) == (there > 0)).all()
    assert (normals[there == 0] == 0).all() and (colors_of_seen(seen)[0][0, 0] == PAPER).all()
    assert (colors_of_seen(seen)[0][there > 0] == [255, 0, 0]).all()


def test_normals_are_right_up_and_towards_the_camera() -> None:
    level = Cameras(*(torch.tensor([x]) for x in (0.0, 0.0, DISTANCE, FOCAL)))
    normals = normals_of_seen(seen_shape(RED, SPHERE, level, 64))[0] / 255 * 2 - 1
    assert np.allclose(normals[31:33, 31:33].mean(axis=(0, 1)), [0, 0, 1], atol=0.05)
    assert normals[32, 48, 0] > 0.5 and normals[32, 15, 0] < -0.5  # right, left
    assert normals[12, 32, 1] > 0.5 and normals[51, 32, 1] < -0.5  # above, below


def test_a_turntable_turns_towards_the_objects_left_and_shows_all_of_it() -> None:
    texture = torch.zeros(3, 2, 4)
    texture[0, :, 1:3] = 1.0  # the front half is red
    texture[2, :, 0] = 1.0  # behind to its right is blue, to its left black
    for scale in (0.1, 2.5):
        shape = ObjectShape(ellipsoid() * scale, texture)
        sheet = np.array(turntable(shape, SPHERE, DISTANCE))
        left = sheet.shape[1] - AZIMUTHS * (TILE + GAP)
        assert left > GAP  # there are titles
        tiles = [
            sheet[GAP + LINE_PX + GAP :][:TILE, left + i * (TILE + GAP) :][:, :TILE]
            for i in range(AZIMUTHS)
        ]
        middle = [tile[TILE // 2, TILE // 2] for tile in tiles]
        for i, color in {0: [255, 0, 0], 3: [0, 0, 0], 5: [0, 0, 255]}.items():
            assert np.allclose(middle[i], color, atol=20)
        for tile in tiles:
            edge = np.concatenate([tile[0], tile[-1], tile[:, 0], tile[:, -1]])
            assert (edge == PAPER).all()
            assert 0.2 < (tile != PAPER).any(axis=2).mean() < math.pi / 4
