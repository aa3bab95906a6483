"""The optimisation is the published one, finds what it can find, and keeps images apart."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.stylegan2 import Generator
from tests.training.tiny_generator import tiny_generator
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, structure_distance
from training.inversion.optimise import (
    InversionTask,
    InvertConfig,
    colors_from_bytes,
    estimate_of_ws,
    images_at_once,
    invert_images,
    learning_rate_at,
)
from training.label_crop import LabelCrop, cropped, rgb_from_float

CROP = LabelCrop(grid=16, crop_top=2, height=12)
SHORT = InvertConfig(steps=12)
WILD = InvertConfig(steps=12, learning_rate=1.0)  # some images end up worse than they started


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


def latents(generator: Generator, count: int, seed: int = 2) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    w: Tensor = generator.mapping(torch.randn(count, 8, generator=source))
    return w[:, None].repeat(1, 6, 1)


def images_of(generator: Generator, ws: Tensor, crop: LabelCrop = CROP) -> NDArray[np.uint8]:
    return rgb_from_float(cropped(generator.synthesis(ws).image, crop))


def noise(count: int, seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), np.uint8)


def test_the_image_of_a_known_latent_is_found_to_40_db(generator: Generator) -> None:
    truth = latents(generator, 2)
    torch.manual_seed(0)
    start = truth + 0.4 * torch.randn_like(truth)
    config = InvertConfig(steps=100, latent_weight=0)
    found = invert_images(generator, images_of(generator, truth), CROP, config, start)
    assert found.start.psnr_db.min() < 30 and found.best.psnr_db.min() > 40


def test_no_point_of_the_way_is_better_than_the_best(generator: Generator) -> None:
    found = invert_images(generator, images_of(generator, latents(generator, 3)), CROP, WILD)
    assert (found.best.loss <= found.last.loss).all()
    assert (found.best.loss <= found.start.loss).all()
    assert (found.best.step > 0).any() and (found.best.step < 12).any()
    assert (found.start.step == 0).all() and (found.last.step == 12).all()


def test_the_best_latents_are_those_of_the_best_loss(generator: Generator) -> None:
    """And no alias of the last ones, as in the published code."""
    images = images_of(generator, latents(generator, 3))
    found = invert_images(generator, images, CROP, WILD)
    earlier = found.best.step < 12
    assert earlier.any() and not torch.equal(found.best.ws[earlier], found.last.ws[earlier])
    targets = colors_from_bytes(images)
    task = InversionTask(generator, targets, found.start.ws, CROP, STRUCTURE, SHORT)
    for fit in (found.start, found.best, found.last):
        torch.testing.assert_close(estimate_of_ws(task, fit.ws, 0).loss, fit.loss)


def test_the_loss_is_the_published_one(generator: Generator) -> None:
    ws, start = latents(generator, 2), latents(generator, 2, seed=4)
    targets = colors_from_bytes(noise(2))
    fit = estimate_of_ws(
        InversionTask(generator, targets, start, CROP, STRUCTURE, InvertConfig()), ws, 0
    )
    for i in range(2):
        made = (generator.synthesis(ws[i : i + 1]).image[:, :, 2:14] + 1) / 2
        terms = (
            10 * structure_distance(made, targets[i : i + 1]).item(),
            1 * ((made[0] - targets[i]) ** 2).mean().item(),
            1 * ((ws[i] - start[i]) ** 2).mean().item(),
        )
        assert fit.loss[i].item() == pytest.approx(sum(terms), rel=1e-5)
        assert fit.perceptual[i].item() == pytest.approx(terms[0] / 10, rel=1e-5)
        error = np.square(made[0].clamp(0, 1).numpy() - targets[i].numpy()).mean()
        assert fit.psnr_db[i].item() == pytest.approx(-10 * math.log10(error), rel=1e-4)


def test_the_learning_rate_rises_for_a_twentieth_and_falls_for_a_quarter() -> None:
    """lr = 0.1 * (0.5 - 0.5 cos(pi min(1, (1 - t) / 0.25))) * min(1, t / 0.05), t = step / 500."""
    config = InvertConfig()
    rates = [learning_rate_at(step, config) for step in range(500)]
    for step, rate in enumerate(rates):
        t = step / 500
        down = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))
        assert rate == pytest.approx(0.1 * down * min(1, t / 0.05), abs=1e-12)
    assert rates[0] == 0 and rates[25:376] == pytest.approx([0.1] * 351)
    assert rates[10] == pytest.approx(0.04) and rates[437] == pytest.approx(0.0506, abs=1e-4)
    assert rates[499] < 1e-4


def test_the_neighbours_in_a_batch_change_nothing(generator: Generator) -> None:
    mine = noise(1)
    one, other = (np.concatenate([noise(2, seed), mine]) for seed in (5, 6))
    a, b = (invert_images(generator, batch, CROP, SHORT) for batch in (one, other))
    assert torch.equal(a.last.ws[2], b.last.ws[2]) and torch.equal(a.best.loss[2:], b.best.loss[2:])
    assert not torch.equal(a.last.ws[0], b.last.ws[0])


def test_the_batch_size_changes_nothing_but_rounding(generator: Generator) -> None:
    images = noise(3)
    together = invert_images(generator, images, CROP, SHORT)
    apart = invert_images(generator, images, CROP, replace(SHORT, at_once=1))
    torch.testing.assert_close(together.last.loss, apart.last.loss, rtol=1e-3, atol=0)
    torch.testing.assert_close(together.last.ws, apart.last.ws, rtol=0, atol=1e-2)


def test_two_runs_are_equal(generator: Generator) -> None:
    one, two = (invert_images(generator, noise(2), CROP, SHORT) for _ in range(2))
    assert torch.equal(one.last.ws, two.last.ws) and torch.equal(one.best.ws, two.best.ws)


def test_an_image_that_fails_does_not_touch_the_others(generator: Generator) -> None:
    images, start = noise(3), latents(generator, 3)
    sound = invert_images(generator, images, CROP, SHORT, start)
    start[1] = 1e30
    found = invert_images(generator, images, CROP, SHORT, start)
    assert found.failed.tolist() == [False, True, False]
    for i in (0, 2):
        assert torch.equal(found.last.ws[i], sound.last.ws[i])


def test_no_steps_give_the_start(generator: Generator) -> None:
    start = latents(generator, 2)
    found = invert_images(generator, noise(2), CROP, InvertConfig(steps=0), start)
    assert torch.equal(found.best.ws, start) and torch.equal(found.last.ws, start)


def test_a_large_generator_takes_few_images_at_a_time() -> None:
    assert [images_at_once(r, r) for r in (64, 256, 512, 1024)] == [16, 8, 2, 1]


@pytest.mark.parametrize(
    ("images", "start", "words"),
    [
        (np.zeros((0, 12, 16, 3), np.uint8), None, r"\[0, 12, 16, 3\].*n of at least 1"),
        (np.zeros((1, 16, 16, 3), np.uint8), None, r"must be \[n, 12, 16, 3\]"),
        (np.zeros((1, 12, 16, 3), np.uint8), torch.zeros(1, 5, 8), r"\[1, 5, 8\].*\[1, 6, 8\]"),
    ],
)
def test_extents_that_do_not_fit_are_refused(
    generator: Generator, images: NDArray[np.uint8], start: Tensor | None, words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        invert_images(generator, images, CROP, SHORT, start)
