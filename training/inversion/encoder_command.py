"""python -m training encoder: a generator's weights -> weights of an encoder from images to w+."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from checkpoints import (
    EncoderCard,
    made_folder,
    sha256_of_file,
    signals_held,
    write_encoder,
)
from nets.config import stated_start
from nets.encoder import Encoder
from training.inversion.distances import DistanceName, distance_from_name
from training.inversion.train_encoder import EncoderTrainConfig, fit_encoder
from training.label_crop import LabelCrop, crop_for_generator
from training.options import (
    AT_LEAST_0,
    batch_option,
    check_suffix,
    crop_options,
    device_option,
    distance_option,
    every_option,
    force_option,
    generator_option,
    identity_of_generator,
    learning_rate_option,
    licence_option,
    mean_latent_option,
    read_generator,
    refuse_existing,
    seed_option,
    vgg_weights_option,
    weights_out_option,
)
from training.resume import StateFile, state_path


@click.command()
@generator_option
@mean_latent_option
@weights_out_option("its card (.toml) and, until training ends, its state")
@force_option
@click.option(
    "--latent-steps",
    type=AT_LEAST_0,
    default=EncoderTrainConfig.latent_steps,
    help="Number of steps of the first phase, whose loss compares latents.",
)
@click.option(
    "--image-steps",
    type=AT_LEAST_0,
    default=EncoderTrainConfig.image_steps,
    help="Number of steps of the second phase, whose loss compares images and latents. Each takes "
    "about three times as long as one of the first phase.",
)
@batch_option("Samples per step.", EncoderTrainConfig.batch)
@click.option(
    "--iterations",
    type=click.IntRange(1, 64),
    default=EncoderTrainConfig.iterations,
    help="Number of residual steps of the encoder, beginning with the mean latent.",
)
@learning_rate_option(
    EncoderTrainConfig.learning_rate, "at the first step; it falls to 0 along a cosine"
)
@click.option(
    "--psi",
    type=click.FloatRange(0, 2),
    default=EncoderTrainConfig.psi,
    help="Truncation psi of the samples.",
)
@seed_option("Seed of the weights and the samples.", EncoderTrainConfig.seed)
@crop_options()
@distance_option
@vgg_weights_option
@device_option
@every_option("saves of the state that an interrupted training resumes from")
@licence_option("the generator's")
def encoder(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path,
    force: bool,
    grid: int | None,
    rows: tuple[int, int] | None,
    distance_name: DistanceName,
    vgg_weights: Path | None,
    device: torch.device,
    every: int,
    licences: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train the encoder that `invert --encoder` starts from.

    It turns images into latents, and learns from samples of the generator alone. The state of an
    interrupted training is saved beside --out; the same command resumes from it.
    """
    config = EncoderTrainConfig(**settings)
    if config.steps == 0:
        raise click.UsageError("--latent-steps and --image-steps are both 0; one must be more")
    check_suffix(out)
    refuse_existing(out, force)
    generator, generator_card, sha256 = read_generator(generator_path, mean_latent)
    crop = crop_for_generator(generator.config, grid, rows)
    distance, words = distance_from_name(distance_name, vgg_weights, device)
    click.echo(words)
    with made_folder(out.parent):  # before the training, to fail early
        recipe = {
            **identity_of_generator(generator, sha256),
            **crop.facts,
            **asdict(config),
            "distance": distance.name,
            "VGG weights": vgg_weights and sha256_of_file(vgg_weights),
        }
        unfinished = StateFile(state_path(out), recipe, every)
        trained = fit_encoder(generator.to(device), crop, config, distance, unfinished).cpu()
        provenance: dict[str, str | int | float | bool] = {
            "by": "python -m training encoder",
            **asdict(config),
            "distance": distance.name,
        }
        card = card_from_encoder(
            trained, crop, sha256, list(licences) or generator_card.licences, provenance
        )
        with signals_held() as held:
            write_encoder(out, trained, card)
            unfinished.remove()
            click.echo(f"wrote {out} and its card")
            held.end(f"all of {out} was written")


def card_from_encoder(
    trained: Encoder,
    crop: LabelCrop,
    generator_sha256: str,
    licences: list[str],
    provenance: dict[str, str | int | float | bool],
) -> EncoderCard:
    """The card of a trained encoder."""
    config = trained.config
    return EncoderCard(
        format=1,
        kind="encoder",
        generator_sha256=generator_sha256,
        grid=crop.grid,
        crop_top=crop.crop_top,
        rows=crop.height,
        height=config.height,
        width=config.width,
        num_ws=config.num_ws,
        w_dim=config.w_dim,
        channels=list(config.channels),
        hidden=config.hidden,
        iterations=config.iterations,
        licences=licences,
        provenance=provenance,
        start=stated_start(crop.start),
    )
