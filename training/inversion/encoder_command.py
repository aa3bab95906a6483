"""python -m training encoder: a generator's samples -> an encoder of its images."""

from dataclasses import asdict
from pathlib import Path

import click
import torch

from checkpoints import EncoderCard, sha256_of_file, write_encoder
from nets.encoder import Encoder
from training.errors import TrainingError
from training.inversion.distances import DistanceName, distance_from_name
from training.inversion.train_encoder import EncoderFitConfig, fit_encoder
from training.label_crop import LabelCrop, crop_for_resolution
from training.options import (
    FILE,
    device_option,
    distance_option,
    force_option,
    generator_option,
    identity_of_generator,
    mean_latent_option,
    read_generator,
    refuse_existing,
    rows_from_text,
    vgg_weights_option,
)
from training.resume import StateFile, state_path

SUFFIX = ".safetensors"


@click.command()
@generator_option
@mean_latent_option
@click.option("--out", type=FILE, required=True, help=f"Weights file to write ({SUFFIX}).")
@force_option
@click.option(
    "--latent-steps",
    type=click.IntRange(0),
    default=EncoderFitConfig.latent_steps,
    help="First steps, by the distance of latents.",
)
@click.option(
    "--image-steps",
    type=click.IntRange(0),
    default=EncoderFitConfig.image_steps,
    help="Further steps, by the distance of images; each costs about three of the first.",
)
@click.option("--batch", type=click.IntRange(1), default=EncoderFitConfig.batch, help="Samples.")
@click.option(
    "--iterations",
    type=click.IntRange(1, 64),
    default=EncoderFitConfig.iterations,
    help="Residual steps from the mean latent.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=EncoderFitConfig.learning_rate,
)
@click.option("--psi", type=click.FloatRange(0, 2), default=1.0, help="Truncation of samples.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=EncoderFitConfig.seed)
@click.option("--grid", type=int, help="Pixels of the label grid; absent: all, at most 512.")
@click.option(
    "--rows",
    type=rows_from_text,
    metavar="FIRST:END",
    help="Rows of the grid that images are, as 64:448 for cars.",
)
@distance_option
@vgg_weights_option
@device_option
@click.option(
    "--every",
    type=click.IntRange(1),
    default=250,
    help="Steps between writings of the state that a killed training goes on from.",
)
@click.option("--licence", "licences", multiple=True, help="Licence tag; may be repeated.")
def encoder(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path,
    force: bool,
    latent_steps: int,
    image_steps: int,
    batch: int,
    iterations: int,
    learning_rate: float,
    psi: float,
    seed: int,
    grid: int | None,
    rows: tuple[int, int] | None,
    distance_name: DistanceName,
    vgg_weights: Path | None,
    device: torch.device,
    every: int,
    licences: tuple[str, ...],
) -> None:
    """Trains an encoder that starts `invert`; it sees no image but the generator's own.

    The state of an unfinished training lies beside --out, and the same command goes on from it.
    """
    if latent_steps + image_steps == 0:
        raise click.UsageError("--latent-steps and --image-steps are both 0; one must be more")
    if out.suffix != SUFFIX:  # its card, .toml, lies beside it
        raise TrainingError(f"--out is {out}; weights are written as {SUFFIX}")
    refuse_existing(out, force)
    generator, generator_card, sha256 = read_generator(generator_path, mean_latent)
    config = EncoderFitConfig(
        latent_steps=latent_steps,
        image_steps=image_steps,
        batch=batch,
        iterations=iterations,
        learning_rate=learning_rate,
        psi=psi,
        seed=seed,
    )
    crop = crop_for_resolution(generator.config.resolution, grid, rows)
    distance, words = distance_from_name(distance_name, vgg_weights, device)
    click.echo(words)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the hours, not after
    recipe = {
        **identity_of_generator(generator, sha256),
        **asdict(crop),
        **asdict(config),
        "distance": distance.name,
        "VGG weights": vgg_weights and sha256_of_file(vgg_weights),
    }
    unfinished = StateFile(state_path(out), recipe, every)
    trained = fit_encoder(generator.to(device), crop, config, distance, unfinished).cpu()
    made: dict[str, str | int | float | bool] = {
        "by": "python -m training encoder",
        **asdict(config),
        "distance": distance.name,
    }
    card = card_from_encoder(trained, crop, sha256, list(licences) or generator_card.licences, made)
    write_encoder(out, trained, card)
    unfinished.remove()
    click.echo(f"wrote {out} and its card")


def card_from_encoder(
    trained: Encoder,
    crop: LabelCrop,
    generator_sha256: str,
    licences: list[str],
    made: dict[str, str | int | float | bool],
) -> EncoderCard:
    """The card of a trained encoder."""
    config = trained.config
    return EncoderCard(
        format=1,
        kind="encoder",
        generator_sha256=generator_sha256,
        grid=crop.grid,
        crop_top=crop.top,
        rows=crop.height,
        height=config.height,
        width=config.width,
        num_ws=config.num_ws,
        w_dim=config.w_dim,
        channels=list(config.channels),
        hidden=config.hidden,
        iterations=config.iterations,
        licences=licences,
        provenance=made,
    )
