"""The stand-in for LPIPS sees what moved and little else; LPIPS is used where it is to be had."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import CheckpointError
from training.errors import TrainingError
from training.inversion.distances import (
    LPIPS_NAME,
    STRUCTURE,
    distance_from_name,
    structure_distance,
)

CPU = torch.device("cpu")
LPIPS_IS_HERE = importlib.util.find_spec("lpips") is not None


def blocks(shift: int = 0) -> Tensor:
    """A bright square on grey, [1, 3, 32, 32]."""
    image = torch.full((1, 3, 32, 32), 0.4)
    image[..., 8:20, 8 + shift : 20 + shift] = 0.8
    return image


def test_equal_pictures_are_at_no_distance_and_none_exceeds_two() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 4, 3, 21, 34)
    assert torch.equal(structure_distance(a, a), torch.zeros(4))
    distance = structure_distance(a, b)
    assert distance.shape == (4,) and (distance > 0.3).all()
    assert (structure_distance(a, 1 - a) <= 2).all()
    torch.testing.assert_close(distance, structure_distance(b, a))


def test_a_pair_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 3, 16, 16)
    torch.testing.assert_close(structure_distance(a, b)[1:2], structure_distance(a[1:2], b[1:2]))


def test_the_farther_a_part_is_off_the_larger_the_distance() -> None:
    distances = [structure_distance(blocks(), blocks(shift)).item() for shift in (0, 1, 2, 4, 8)]
    assert distances == sorted(distances) and len(set(distances)) == 5


def test_brightness_counts_less_than_a_shift_of_one_pixel() -> None:
    brighter = structure_distance(blocks(), blocks() + 0.15)
    assert brighter < 1e-6 and structure_distance(blocks(), blocks(1)) > 0.01


def test_a_gradient_leads_a_picture_to_its_target() -> None:
    torch.manual_seed(0)
    target, image = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16).requires_grad_()
    before = structure_distance(image, target)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert gradient.isfinite().all()
    assert structure_distance(image - 0.1 * gradient / gradient.abs().max(), target) < before


def test_equal_pictures_have_a_finite_gradient() -> None:
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(structure_distance(image, image.detach()).sum(), image)
    assert gradient.isfinite().all()


def test_the_stand_in_says_that_it_is_one(tmp_path: Path) -> None:
    assert distance_from_name("structure", None, CPU)[0] is STRUCTURE
    distance, words = distance_from_name("auto", None, CPU)
    assert distance.name in words
    if not LPIPS_IS_HERE:
        assert distance is STRUCTURE and "in place of LPIPS: the package lpips is not" in words


@pytest.mark.skipif(LPIPS_IS_HERE, reason="lpips is installed")
def test_lpips_that_is_asked_for_and_missing_is_an_error(tmp_path: Path) -> None:
    for name, weights in (("lpips", None), ("auto", tmp_path / "vgg.pth")):
        with pytest.raises(TrainingError, match="LPIPS cannot be used: the package lpips is not"):
            distance_from_name("lpips" if name == "lpips" else "auto", weights, CPU)


@pytest.mark.skipif(not LPIPS_IS_HERE, reason="needs the package lpips")
def test_lpips_runs_on_a_file_of_torchvisions_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    with pytest.raises(TrainingError, match=r"vgg\.pth is not there"):
        distance_from_name("auto", path, CPU)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        distance_from_name("auto", path, CPU)
    torch.manual_seed(0)
    torch.save(vgg_state(), path)
    distance, _ = distance_from_name("auto", path, CPU)
    a, b = torch.rand(2, 2, 3, 32, 32)
    assert distance.name == LPIPS_NAME and distance.between(a, b).shape == (2,)
    assert torch.equal(distance.between(a, a), torch.zeros(2))
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(TrainingError, match="holds no VGG-16"):
        distance_from_name("auto", path, CPU)


def vgg_state() -> dict[str, Tensor]:
    """Random weights under torchvision's names."""
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    positions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    state = {}
    for i, before, after in zip(positions, widths[:-1], widths[1:], strict=True):
        state[f"features.{i}.weight"] = torch.randn(after, before, 3, 3) / (3 * before**0.5)
        state[f"features.{i}.bias"] = torch.zeros(after)
    return state
