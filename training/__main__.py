"""python -m training: few labelled images -> weights."""

import sys
from pathlib import Path

import click

from checkpoints import CheckpointError, generator_from_file, sha256_of_file, write_interpreter
from training.card import card_from_fit
from training.errors import TrainingError
from training.fit_interpreter import FitConfig, fit_interpreter
from training.labelled_set import labelled_set_from_folder
from training.refiner_command import refiner
from training.sample_command import sample


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Few labelled images -> weights of the label ensemble."""


@main.command()
@click.option(
    "--generator",
    "generator_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Weights file of the generator, its card beside it.",
)
@click.option(
    "--labels",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of labelled images: latents.npy, mask_00.png ..., classes.toml, keypoints.json.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Weights file to write (.safetensors); its card is written beside it.",
)
@click.option(
    "--members",
    type=click.IntRange(1, 1024),
    default=FitConfig.members,
    show_default=True,
    help="Members of the ensemble.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=FitConfig.steps,
    show_default=True,
    help="Optimiser steps.",
)
@click.option("--seed", type=click.IntRange(0), default=FitConfig.seed, show_default=True)
@click.option("--licence", "licences", multiple=True, help="Licence tag; may be repeated.")
def interpreter(
    generator_path: Path,
    folder: Path,
    out: Path,
    members: int,
    steps: int,
    seed: int,
    licences: tuple[str, ...],
) -> None:
    """Trains the label ensemble on a folder of labelled images."""
    generator, generator_card = generator_from_file(generator_path)
    labels = labelled_set_from_folder(folder)
    config = FitConfig(members=members, steps=steps, seed=seed)
    trained = fit_interpreter(generator, labels, config)
    card = card_from_fit(
        trained,
        labels,
        config,
        sha256_of_file(generator_path),
        generator.config.tap_recipe,
        list(licences) or generator_card.licences,
    )
    write_interpreter(out, trained, card)
    click.echo(f"wrote {out} and its card: {', '.join(head.kind for head in card.heads)}")


main.add_command(sample)
main.add_command(refiner)


def run() -> None:
    """The command with one-line errors: exit code 1 for the input's faults, 2 for usage."""
    try:
        main(prog_name="python -m training")
    except (TrainingError, CheckpointError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()
