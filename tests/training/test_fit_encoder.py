"""An encoder learns to tell latents from images, the same way for a seed."""

from dataclasses import replace

import pytest
import torch

from nets.stylegan2 import Generator, GeneratorConfig
from tests.training.tiny_generator import tiny_generator
from training.errors import TrainingError
from training.inversion.optimise import colors_from_ws, psnr_of_images
from training.inversion.train_encoder import (
    EncoderTrainConfig,
    encoder_config,
    encoder_steps,
    fit_encoder,
    sampled_ws,
    ws_from_images,
)
from training.label_crop import LabelCrop, cropped, rgb_from_float

CROP = LabelCrop(grid=16, crop_top=2, height=12)
SHORT = EncoderTrainConfig(latent_steps=3, image_steps=2, batch=4)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator(z_dim=4)


@pytest.mark.long
def test_a_trained_encoder_shows_more_of_an_image_than_the_mean_does(generator: Generator) -> None:
    config = EncoderTrainConfig(latent_steps=40, image_steps=10, batch=8, iterations=2)
    encoder = fit_encoder(generator, CROP, config)
    source = torch.Generator().manual_seed(99)
    ws = generator.mapping(torch.randn(32, 4, generator=source))[:, None].repeat(1, 6, 1)
    colours = colors_from_ws(generator, ws, CROP)
    mean = colors_from_ws(generator, encoder.mean_ws(1), CROP).expand_as(colours)
    found = [
        psnr_of_images(colors_from_ws(generator, step, CROP), colours).mean()
        for step in encoder_steps(encoder, generator, colours, CROP)
    ]
    assert found[-1] > psnr_of_images(mean, colours).mean() + 2


def test_the_same_seed_gives_the_same_encoder(generator: Generator) -> None:
    one, two = (fit_encoder(generator, CROP, SHORT).state_dict() for _ in range(2))
    other = fit_encoder(generator, CROP, replace(SHORT, seed=1)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["linear1.weight"], other["linear1.weight"])


def test_both_phases_train(generator: Generator) -> None:
    weights = [
        fit_encoder(generator, CROP, config).linear1.weight
        for config in (
            replace(SHORT, latent_steps=5, image_steps=0),
            replace(SHORT, latent_steps=0, image_steps=5),
            SHORT,
        )
    ]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_half_of_the_samples_have_rows_of_two_latents(generator: Generator) -> None:
    ws = next(sampled_ws(generator, SHORT, torch.Generator().manual_seed(0)))
    rows = [len(torch.unique(sample, dim=0)) for sample in ws]
    assert ws.shape == (4, 6, 8) and rows == [1, 1, 2, 2]


def test_psi_draws_the_samples_to_the_mean(generator: Generator) -> None:
    ws = next(sampled_ws(generator, replace(SHORT, psi=0), torch.Generator()))
    torch.testing.assert_close(ws, generator.mapping.w_avg.expand(4, 6, 8))


def test_the_encoder_reads_at_most_256_px_of_the_frames_shape() -> None:
    config = GeneratorConfig(512, (16,) * 8, z_dim=4, w_dim=8, mapping_layers=1)
    with torch.device("meta"):
        large = Generator(config)
    shape = encoder_config(large, LabelCrop(512, 64, 384), iterations=5)
    assert (shape.height, shape.width, shape.num_ws, shape.iterations) == (192, 256, 16, 5)
    tall = encoder_config(large, LabelCrop(512, 0, 512, (4, 2)), iterations=1)
    assert (tall.height, tall.width) == (256, 128)


def test_an_images_latents_do_not_depend_on_the_others(generator: Generator) -> None:
    encoder = fit_encoder(generator, CROP, SHORT)
    ws = next(sampled_ws(generator, replace(SHORT, batch=8), torch.Generator().manual_seed(5)))
    images = rgb_from_float(cropped(generator.synthesis(ws).image, CROP))
    together = ws_from_images(encoder, generator, images, CROP)
    assert together.shape == (8, 6, 8)
    torch.testing.assert_close(
        ws_from_images(encoder, generator, images[5:6], CROP), together[5:6], rtol=1e-4, atol=1e-5
    )


def test_a_loss_that_explodes_ends_the_training_in_one_line(generator: Generator) -> None:
    wild = replace(SHORT, latent_steps=41, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d+; lower --learning"):
        fit_encoder(generator, CROP, wild)
