"""python -m training sample: images for people to label."""

from pathlib import Path

import click
import torch

from training.images.sample import Choice, SampleConfig, sample_images
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
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option("--count", type=click.IntRange(1), default=SampleConfig.count, help="Images.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help="Draws to choose from; as many as --count: no choice.  [default: 16 times --count]",
)
@click.option(
    "--choose",
    type=click.Choice(["typical", "farthest"]),
    default=SampleConfig.choose,
    help="Those in the middle of clusters of w, or those farthest apart in it.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=SampleConfig.seed)
@click.option("--psi", type=click.FloatRange(0, 2), help="Truncation psi; absent: the card's own.")
@click.option("--cutoff", type=click.IntRange(0), help="Truncated rows; absent: the card's own.")
@click.option("--grid", type=int, help="Pixels of the label grid; absent: all, at most 512.")
@click.option(
    "--rows",
    type=rows_from_text,
    metavar="FIRST:END",
    help="Rows of the grid to keep, as 64:448 for cars.",
)
@device_option
def sample(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path,
    count: int,
    candidates: int | None,
    choose: Choice,
    seed: int,
    psi: float | None,
    cutoff: int | None,
    grid: int | None,
    rows: tuple[int, int] | None,
    device: torch.device,
) -> None:
    """Draws images to label: images/*.png, their latents, and the index that pairs them."""
    generator, card, sha256 = read_generator(generator_path, mean_latent)
    config = SampleConfig(
        count=count,
        candidates=16 * count if candidates is None else candidates,
        choose=choose,
        seed=seed,
        psi=card.truncation_psi if psi is None else psi,
        cutoff=card.truncation_cutoff if cutoff is None else cutoff,
    )
    crop = crop_for_resolution(generator.config.resolution, grid, rows)
    sample_images(generator.to(device), config, crop, out, sha256)
    click.echo(f"wrote {count} images of {crop} pixels, their latents and their index to {out}")
