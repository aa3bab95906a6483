"""Latents give scenes within the declared ranges, with camera and content independent."""

import dataclasses

import pytest
import torch
from torch import Tensor

from examples.demo.scene import (
    CLASS_NAMES,
    KEYPOINT_NAMES,
    MAX_AZIMUTH,
    MAX_ELEVATION,
    PALETTE,
    SKELETON,
    Z_DIM,
    Scene,
    scene_from_latents,
)


def drawn(count: int, seed: int = 0) -> Tensor:
    """Latents float32 [count, Z_DIM]."""
    return torch.randn(count, Z_DIM, generator=torch.Generator().manual_seed(seed))


def scenes(count: int, seed: int = 0) -> Scene:
    z = drawn(count, seed)
    return scene_from_latents(z, z)


def fields(scene: Scene) -> dict[str, Tensor]:
    return {f.name: getattr(scene, f.name) for f in dataclasses.fields(scene)}


def test_the_camera_comes_from_the_view_latent_alone() -> None:
    a, b = drawn(8, 1), drawn(8, 2)
    own, mixed = fields(scene_from_latents(a, a)), fields(scene_from_latents(a, b))
    for name in ("azimuth", "elevation"):
        assert torch.equal(own[name], mixed[name])


def test_the_content_comes_from_the_content_latent_alone() -> None:
    a, b = drawn(8, 1), drawn(8, 2)
    own, mixed = fields(scene_from_latents(b, b)), fields(scene_from_latents(a, b))
    for name in own.keys() - {"azimuth", "elevation"}:
        assert torch.equal(own[name], mixed[name]), name


def test_views_stay_within_the_declared_angles_and_reach_towards_them() -> None:
    scene = scenes(4096)
    assert scene.azimuth.abs().max() <= MAX_AZIMUTH
    assert scene.elevation.abs().max() <= MAX_ELEVATION
    assert scene.azimuth.abs().max() > 0.95 * MAX_AZIMUTH
    assert scene.elevation.abs().max() > 0.95 * MAX_ELEVATION


def test_latents_are_normalized_as_the_mapping_network_does() -> None:
    z = drawn(4)
    one, scaled = fields(scene_from_latents(z, z)), fields(scene_from_latents(z * 3, z * 3))
    for name, value in one.items():
        torch.testing.assert_close(value, scaled[name], msg=name)


def test_rare_cases_are_rare_but_present() -> None:
    scene = scenes(4096)
    assert 0.08 < scene.glasses.float().mean() < 0.16
    assert 0.10 < (scene.beard > 0).float().mean() < 0.18


def test_every_content_parameter_varies() -> None:
    for name, value in fields(scenes(256)).items():
        assert value.float().std(dim=0).max() > 0.01, name


def test_latents_of_another_shape_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\).*must be \[N, 32\]"):
        scene_from_latents(torch.zeros(2, 5), torch.zeros(2, 5))


def test_names_palette_and_skeleton_belong_together() -> None:
    assert len(PALETTE) == len(CLASS_NAMES) == len(set(PALETTE))
    assert all(0 <= color <= 0xFFFFFF for color in PALETTE)
    assert all(0 <= i < len(KEYPOINT_NAMES) for bone in SKELETON for i in bone)
