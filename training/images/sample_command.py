"""`python -m training sample`: a generator -> an image set for people to label."""

from pathlib import Path
from typing import Any

import click
import torch

from training.images.sample import SampleConfig, sample_images
from training.label_crop import crop_for_resolution
from training.options import (
    FOLDER,
    device_option,
    generator_option,
    mean_latent_option,
    read_generator,
    rows_from_text,
)


@click.command()
@generator_option
@mean_latent_option
@click.option("--out", type=FOLDER, required=True, help="Folder to write the image set to.")
@click.option(
    "--count", type=click.IntRange(1), default=SampleConfig.count, help="Number of images."
)
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help="Number of samples to choose the images from.  [default: 16 times --count]",
)
@click.option(
    "--choose",
    type=click.Choice(["typical", "farthest"]),
    default=SampleConfig.choose,
    help="How images are chosen among the candidates: typical: the centers of clusters of w; "
    "farthest: those farthest apart in w.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=SampleConfig.seed,
    help="Seed of the stream that candidates are samples of.",
)
@click.option(
    "--psi", type=click.FloatRange(0, 2), help="Truncation psi.  [default: of the generator's card]"
)
@click.option(
    "--cutoff",
    type=click.IntRange(0),
    help="Number of truncated rows of w+.  [default: of the generator's card]",
)
@click.option(
    "--grid",
    type=int,
    help="Side of the label grid in pixels.  [default: the generator's resolution, at most 512]",
)
@click.option(
    "--rows",
    type=rows_from_text,
    metavar="FIRST:END",
    help="Rows of the grid to keep, e.g. 64:448 for cars.  [default: all]",
)
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
    """Samples images for people to label.

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
    crop = crop_for_resolution(generator.config.resolution, grid, rows)
    images = sample_images(generator.to(device), config, crop, out, sha256)
    click.echo(
        f"wrote {len(images)} images of {crop} pixels, their latents and their index to {out}"
    )
