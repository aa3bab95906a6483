"""The camera changes only the look, and the same seed gives the same photographs."""

import torch

from examples.demo.camera import CameraLook, photographed
from examples.train_segmentation.samples import SceneDraw, rendered
from training.refiner.drift import drift_between

SCENES = SceneDraw(seed=8, count=8)


def test_a_photograph_is_of_its_seed_and_its_place() -> None:
    images = rendered(SCENES).images
    first, again, other = (photographed(images, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first[:3], photographed(images[:3], 3))
    assert first.shape == images.shape and first.dtype == torch.uint8


def test_it_looks_otherwise_and_moves_nothing() -> None:
    images = rendered(SCENES).images
    seen = photographed(images, 3)
    found = drift_between(images, seen)
    assert found.shift_px < 0.3 and found.structure > 0.85
    assert (images.float() - seen.float()).abs().mean() > 25
    warm = seen.float().mean(dim=(0, 2, 3)) / images.float().mean(dim=(0, 2, 3))
    assert warm[0] > warm[1] > warm[2]


def test_a_perfect_camera_changes_nothing() -> None:
    images = rendered(SCENES).images
    perfect = CameraLook(
        cast=(1, 1, 1), cast_spread=0, exposure=1, exposure_spread=0, light=0, mottle=0,
        blur_px=0.01, noise=0,
    )  # fmt: skip
    assert torch.equal(photographed(images, 0, perfect), images)
