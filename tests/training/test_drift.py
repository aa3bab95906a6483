"""What moved is measured in pixels; what only looks different is not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.demo.camera import photographed
from examples.train_segmentation.samples import SceneDraw, rendered
from training.refiner.drift import drift_between


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rendered(SceneDraw(seed=4, count=24)).images


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -2), (2, 1)])
def test_a_shift_is_its_length(images: Tensor, dy: int, dx: int) -> None:
    found = drift_between(images, images.roll((dy, dx), (2, 3)))
    assert found.shift_px == pytest.approx(np.hypot(dy, dx), abs=0.15)


def test_half_a_pixel_is_seen(images: Tensor) -> None:
    maps = torch.eye(2, 3)[None].repeat(len(images), 1, 1)
    maps[:, 0, 2] = 0.5 * 2 / 64
    grid = F.affine_grid(maps, [*images.shape], align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    found = drift_between(images, moved.round().byte())
    assert 0.35 < found.shift_px < 0.65


def test_another_look_is_no_movement(images: Tensor) -> None:
    same, camera = (
        drift_between(images, images),
        drift_between(images, photographed(images, seed=1)),
    )
    assert same.shift_px < 0.1 and same.structure > 0.999
    assert camera.shift_px < 0.3 and camera.structure > 0.85


def test_other_images_have_no_structure_in_common(images: Tensor) -> None:
    found = drift_between(images, images.roll(1, 0))
    assert found.structure < 0.3


def test_what_is_hidden_by_a_strong_pattern_is_not_taken_for_movement(images: Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    pattern = torch.randn(24, 1, 32, 32, generator=rng).repeat_interleave(2, 2)
    pattern = pattern.repeat_interleave(2, 3) * 25
    found = drift_between(images, (images + pattern).clamp(0, 255).byte())
    assert found.shift_px < 0.5 and 0.4 < found.structure < 0.95


def test_a_blank_image_has_none_at_all_and_no_nan(images: Tensor) -> None:
    found = drift_between(images, torch.full_like(images, 90))
    assert found.structure == pytest.approx(0, abs=0.01)
    assert found.shift_px == np.inf
