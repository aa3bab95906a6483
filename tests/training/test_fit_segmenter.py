"""The segmenter judges where things are, not how they look."""

import pytest
import torch
from torch import Tensor

from nets.segmenter import Segmenter
from training.refiner.segmenter import agreement_of, fit_segmenter, with_random_looks


def discs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two discs on a wall, uint8 [n, 3, 32, 32], and their class ids."""
    source = torch.Generator().manual_seed(seed)
    place = torch.arange(32) + 0.5
    masks = torch.zeros(count, 32, 32, dtype=torch.uint8)
    for label, radius in ((1, 8), (2, 4)):
        x, y = (8 + 16 * torch.rand(count, 1, 1, generator=source) for _ in range(2))
        inside = (place - x).square() + (place[:, None] - y).square() < radius**2
        masks[inside] = label
    colours = torch.tensor([[60, 90, 200], [220, 160, 60], [40, 200, 70]])
    return colours[masks.long()].permute(0, 3, 1, 2).byte(), masks


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return fit_segmenter(*discs(64, seed=0), steps=120, seed=0)


@pytest.mark.long
def test_another_look_agrees_and_a_shift_does_not(segmenter: Segmenter) -> None:
    images, _ = discs(32, seed=1)
    looks = with_random_looks(images.float() / 255, torch.Generator().manual_seed(3))
    changed = (looks * 255).byte()
    in_place = agreement_of(segmenter, images, changed)
    moved = [agreement_of(segmenter, images, changed.roll(shift, 3)) for shift in (1, 2, 4)]
    assert agreement_of(segmenter, images, images) == 1
    assert in_place > 0.85
    assert in_place - 0.05 > moved[0] > moved[1] > moved[2]


def test_the_same_seed_gives_the_same_segmenter() -> None:
    images, masks = discs(8, seed=2)
    first, again, other = (
        fit_segmenter(images, masks, steps=3, seed=seed).state_dict() for seed in (5, 5, 6)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_odd_extents_are_taken() -> None:
    segmenter = fit_segmenter(*discs(2, seed=0), steps=1, seed=0)
    assert segmenter(torch.zeros(1, 3, 29, 35)).shape == (1, 3, 29, 35)
