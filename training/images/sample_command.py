"""`python -m training sample`: a generator -> an image set for people to label."""

from pathlib import Path
from typing import Any

import click
import torch

from training.images.sample import SampleConfig, sample_images
from training.label_crop import crop_for_generator
from training.options import (
    AT_LEAST_1,
    MAX_STREAM_SEED,
    crop_options,
    device_option,
    folder_out_option,
    generator_option,
    mean_latent_option,
    read_generator,
    seed_option,
    truncation_options,
)


@click.command()
@generator_option
@mean_latent_option
@folder_out_option("the image set")
@click.option("--count", type=AT_LEAST_1, default=SampleConfig.count, help="Number of images.")
@click.option(
    "--candidates",
    type=AT_LEAST_1,
    help="Number of samples to choose the images from.  [default: 16 times --count]",
)
@click.option(
    "--choose",
    type=click.Choice(["typical", "farthest"]),
    default=SampleConfig.choose,
    help="Which candidates become images: typical (the centers of clusters of w) or farthest "
    "(those farthest apart in w).",
)
@seed_option(
    "Seed of the candidates, as in a request to the service.", SampleConfig.seed, MAX_STREAM_SEED
)
@truncation_options
@crop_options()
@device_option
def sample(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path,
    grid: int | None,
    rows: tuple[int, int] | None,
    device: torch.device,
    **settings: Any,
) -> None:
    """Sample images for people to label.

    Writes images/*.png, their latents (latents.npy), and the index that pairs them (index.json).
    """
    generator, card, sha256 = read_generator(generator_path, mean_latent)
    defaults = {
        "candidates": 16 * settings["count"],
        "psi": card.truncation_psi,
        "cutoff": card.truncation_cutoff,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    config = SampleConfig(**(defaults | given))
    crop = crop_for_generator(generator.config, grid, rows)
    images = sample_images(generator.to(device), config, crop, out, sha256)
    click.echo(
        f"wrote {len(images)} images of {crop} pixels, their latents and their index to {out}"
    )
