"""Options that several verbs share, each declared once."""

from pathlib import Path

import click

from checkpoints import GeneratorCard, generator_from_path, sha256_of_file
from nets.generator import Generator

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

generator_option = click.option(
    "--generator",
    "generator_path",
    type=FILE,
    required=True,
    help="Weights with their card beside them, or an official StyleGAN2 .pkl (PyTorch or "
    "TensorFlow), a rosinality .pt, or a DatasetGAN StyleGAN1 .pt.",
)
mean_latent_option = click.option(
    "--mean-latent", type=FILE, help="Mean of w (.npy) of a StyleGAN1 .pt."
)


def read_generator(path: Path, mean_latent: Path | None) -> tuple[Generator, GeneratorCard, str]:
    """Network, card and SHA-256 of the weights file. Raises CheckpointError."""
    network, card = generator_from_path(path, mean_latent)
    return network, card, sha256_of_file(path)


def rows_from_text(text: str) -> tuple[int, int]:
    """FIRST:END, as in 64:448. Raises click.BadParameter."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise click.BadParameter(f"{text!r} is not FIRST:END, as in 64:448")
    return int(first), int(end)
