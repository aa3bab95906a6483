"""Command-line options shared by several training subcommands, and the parsers behind them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from checkpoints import NATIVE, GeneratorCard, generator_from_path, sha256_of_file
from nets.generator import Generator
from training.errors import TrainingError
from training.resume import digest, state_path

Command = TypeVar("Command", bound=Callable[..., Any])
Number = TypeVar("Number", int, float)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

generator_option = click.option(
    "--generator",
    "generator_path",
    type=FILE,
    required=True,
    help="Path to the generator's weights: a .safetensors file with its card (.toml) beside it, an "
    "official StyleGAN2 .pkl (PyTorch or TensorFlow), a rosinality .pt, or a DatasetGAN StyleGAN1 "
    ".pt.",
)
mean_latent_option = click.option(
    "--mean-latent",
    type=FILE,
    help="Path to the mean of w (.npy) of a StyleGAN1 .pt.  [default: measured over samples]",
)


def torch_device(name: str) -> torch.device:
    """Parses a device name and checks that torch can compute there. Raises click.BadParameter."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise click.BadParameter(f"torch cannot use {name!r} here: {reason}") from error
    return device


device_option = click.option(
    "--device",
    type=torch_device,
    metavar="NAME",
    default="cpu",
    help="torch device to compute on, e.g. cuda or cuda:1.",
)

force_option = click.option("--force", is_flag=True, help="Overwrite --out if it exists.")


def refuse_existing(path: Path, force: bool) -> None:
    """Raises TrainingError if `path` exists and --force was not given."""
    if path.exists() and not force:
        raise TrainingError(f"{path} exists; give --force to replace it, or another name")


def can_resume(out: Path, resume: bool) -> bool:
    """Whether to load a state: --resume was given, and weights or a state exist.

    A job that is always started with --resume has neither on its first run, so training then starts
    at step 0. Weights without a state return True, and loading the missing state raises the error.
    """
    if resume and not (state_path(out).exists() or out.exists()):
        click.echo(f"{state_path(out)} is not there yet; training starts at step 0")
        return False
    return resume


def label_options(command: Command) -> Command:
    """Adds --labels, and the options for labels kept outside that folder."""
    for option in (
        click.option(
            "--depth", type=FOLDER, help="Folder of depth maps.  [default: depth/ in --labels]"
        ),
        click.option(
            "--keypoints",
            type=FILE,
            help="COCO file of keypoints.  [default: keypoints.json in --labels]",
        ),
        click.option(
            "--classes",
            type=FILE,
            help="TOML file of class names and colors.  [default: classes.toml in --labels]",
        ),
        click.option(
            "--masks",
            type=click.Path(path_type=Path),
            help="Folder of PNG or LabelMe masks, or a COCO file.  [default: masks/, labelme/ or "
            "masks.json in --labels]",
        ),
        click.option(
            "--labels",
            "folder",
            type=FOLDER,
            required=True,
            help="Image set written by `sample` or `invert`, with labels added.",
        ),
    ):
        command = option(command)
    return command


def numbers_from_text(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """Returns a parser of comma-separated numbers, each read by `kind`."""

    def numbers(text: str) -> tuple[Number, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers, such as 1,2") from error

    return numbers


def refuse_nan(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Option callback that refuses NaN, which click.FloatRange lets through."""
    if value != value:
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


def read_generator(path: Path, mean_latent: Path | None) -> tuple[Generator, GeneratorCard, str]:
    """Reads a generator: network, card, and SHA-256 of the weights file.

    Raises CheckpointError, or TrainingError if the file already contains the mean latent.
    """
    if mean_latent is not None and path.suffix == NATIVE:
        raise TrainingError(f"--mean-latent is given, but {path} brings its own; leave it out")
    network, card = generator_from_path(path, mean_latent)
    return network, card, sha256_of_file(path)


def identity_of_generator(generator: Generator, sha256: str) -> dict[str, str]:
    """Recipe entries that identify a generator: the hash of its file, and that of the mean of w,
    which --mean-latent may supply from another file."""
    return {"generator weights": sha256, "means of w": digest(generator.mapping.w_avg)}


def rows_from_text(text: str) -> tuple[int, int]:
    """Parses FIRST:END, e.g. 64:448. Raises click.BadParameter."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise click.BadParameter(f"{text!r} is not FIRST:END, such as 64:448")
    return int(first), int(end)


distance_option = click.option(
    "--distance",
    "distance_name",
    type=click.Choice(["auto", "lpips", "structure"]),
    default="auto",
    help="Perceptual distance. auto: lpips if its package and weights are found, else structure, a "
    "distance that needs no weights.",
)
vgg_weights_option = click.option(
    "--vgg-weights",
    type=FILE,
    help="Path to torchvision's VGG-16 weights, for LPIPS.  [default: torch's cache]",
)
