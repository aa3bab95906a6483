"""Refined pixels keep their positions, and every image has its own grain."""

import torch
from torch import Tensor, nn

from nets.refiner import GrainSource, PatchCritic, Refiner, RefinerConfig


def lively(config: RefinerConfig, seed: int = 0) -> Refiner:
    """A refiner with random weights everywhere, none of them zero."""
    torch.manual_seed(seed)
    refiner = Refiner(config)
    for parameter in refiner.parameters():
        parameter.data.normal_(0, 0.2)
    return refiner.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_images_of_any_extent_keep_it() -> None:
    refiner = lively(RefinerConfig(width=6, blocks=2, grain=2))
    for height, width in ((5, 9), (24, 24), (33, 47)):
        refined = refiner(noise(2, 3, height, width), noise(2, 2, height, width))
        assert refined.shape == (2, 3, height, width)
        assert refined.abs().max() < 1


def test_shifting_an_image_shifts_its_refined_one() -> None:
    refiner = lively(RefinerConfig(width=6, blocks=2, grain=0))
    image = noise(1, 3, 40, 40)
    reach = 1 + 2 * 2  # pixels either way that one depends on: the stem's and two in each block
    for dy, dx in ((1, 0), (0, 3), (2, 1)):
        moved = refiner(image[:, :, dy:, dx:])
        inside = slice(reach, 30)
        expected = refiner(image)[:, :, dy:, dx:]
        assert torch.allclose(
            moved[:, :, inside, inside], expected[:, :, inside, inside], atol=1e-6
        )


def test_a_pixel_sees_no_further_than_the_layers_reach() -> None:
    refiner = lively(RefinerConfig(width=6, blocks=1, grain=0))
    image = noise(1, 3, 21, 21)
    changed = image.clone()
    changed[:, :, 10, 10] += 0.5
    rows, columns = (refiner(changed) != refiner(image))[0].any(dim=0).nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 13, 7, 13)


def test_a_flat_image_gets_no_frame() -> None:
    refined = lively(RefinerConfig(width=6, blocks=3, grain=0))(torch.full((1, 3, 20, 20), 0.3))
    assert torch.allclose(refined, refined[:, :, :1, :1].expand_as(refined), atol=1e-6)


def test_a_new_refiner_nearly_leaves_images_as_they_are() -> None:
    torch.manual_seed(0)
    image = noise(2, 3, 24, 24)
    refined = Refiner(RefinerConfig(width=8, blocks=2))(image, noise(2, 3, 24, 24))
    assert (refined - image).abs().max() < 0.18


def test_the_critic_has_a_verdict_of_either_sign_for_every_patch() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(3, width=12)
    logits = torch.cat([critic(noise(4, 3, 32, 32, seed=seed)) for seed in range(8)])
    assert logits.shape == (32, 1, 8, 8)
    swing = (logits - logits.mean()).abs().max()  # an activation would cut one side off
    last = critic.layers[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    for sign in (1, -1):
        last.bias.data.add_(sign * swing - logits.mean())
        assert (sign * critic(noise(4, 3, 32, 32)) > 0).any()


def test_a_patch_of_the_critic_is_local() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(3, width=12)
    image = noise(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, :, 32:] = 0
    assert torch.equal(critic(changed)[..., :4], critic(image)[..., :4])
    assert not torch.equal(critic(changed)[..., 8:], critic(image)[..., 8:])


def test_grain_is_standard_normal_and_each_image_has_its_own() -> None:
    source = GrainSource(3, 64, 64, torch.full((16,), 5.0), seed=3)
    ws = 5 + torch.randn(64, 4, 16, generator=torch.Generator().manual_seed(0))
    grain = source(ws)
    assert grain.shape == (64, 3, 64, 64)
    assert abs(float(grain.mean())) < 0.01 and abs(float(grain.var()) - 1) < 0.02
    flat = grain.flatten(2)
    beside = (grain[..., 1:] * grain[..., :-1]).mean()
    assert abs(float(beside)) < 0.02  # neighbours are independent
    assert abs(float((flat[:, 0] * flat[:, 1]).mean())) < 0.02  # and so are channels
    between = torch.corrcoef(flat[:, 0])
    off = between[~torch.eye(64, dtype=torch.bool)]
    assert float(off.abs().mean()) < 0.5 and float(off.abs().max()) < 0.999


def test_grain_is_a_function_of_ws_and_the_seed_alone() -> None:
    ws = torch.randn(5, 4, 16, generator=torch.Generator().manual_seed(0))
    first = GrainSource(2, 8, 10, torch.zeros(16), seed=3)(ws)
    again = GrainSource(2, 8, 10, torch.zeros(16), seed=3)(ws[2:])
    other = GrainSource(2, 8, 10, torch.zeros(16), seed=4)(ws)
    assert torch.allclose(first[2:], again, atol=1e-6)
    assert not torch.allclose(first, other, atol=0.1)


def test_grain_is_finite_at_the_mean_of_w() -> None:
    mean = torch.randn(16)
    grain = GrainSource(2, 8, 8, mean, seed=0)(mean.expand(2, 4, 16))
    assert torch.isfinite(grain).all()
