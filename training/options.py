"""Options that several verbs share, each declared once."""

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
    help="Weights with their card beside them, or an official StyleGAN2 .pkl (PyTorch or "
    "TensorFlow), a rosinality .pt, or a DatasetGAN StyleGAN1 .pt.",
)
mean_latent_option = click.option(
    "--mean-latent", type=FILE, help="Mean of w (.npy) of a StyleGAN1 .pt."
)


def torch_device(name: str) -> torch.device:
    """A device that torch can compute on. Raises click.BadParameter."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise click.BadParameter(f"torch cannot use {name!r} here: {reason}") from error
    return device


device_option = click.option(
    "--device", type=torch_device, metavar="NAME", default="cpu", help="As cuda, or cuda:1."
)

force_option = click.option("--force", is_flag=True, help="Replace what is at --out.")


def refuse_existing(path: Path, force: bool) -> None:
    """Raises TrainingError when writing there would lose what somebody made."""
    if path.exists() and not force:
        raise TrainingError(f"{path} exists; give --force to replace it, or another name")


def goes_on(out: Path, resume: bool) -> bool:
    """Whether there is something to resume. A job that is always started with --resume has nothing
    at first; weights without their state are a mistake, which reading the state tells."""
    if resume and not (state_path(out).exists() or out.exists()):
        click.echo(f"{state_path(out)} is not there yet: training starts at its beginning")
        return False
    return resume


def label_options(command: Command) -> Command:
    """--labels, and where labels lie that are not in that folder."""
    for option in (
        click.option("--depth", type=FOLDER, help="Depth maps, if not in depth/ there."),
        click.option("--keypoints", type=FILE, help="COCO keypoints, if not in keypoints.json."),
        click.option("--classes", type=FILE, help="Names and colours, if not in classes.toml."),
        click.option(
            "--masks",
            type=click.Path(path_type=Path),
            help="A folder of PNG or LabelMe files, or a COCO file; absent: masks/, labelme/ or "
            "masks.json there.",
        ),
        click.option(
            "--labels",
            "folder",
            type=FOLDER,
            required=True,
            help="Folder that `sample` or `invert` wrote, with labels beside the images.",
        ),
    ):
        command = option(command)
    return command


def numbers_from_text(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """A parser of numbers with commas between them."""

    def numbers(text: str) -> tuple[Number, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers, as 1,2") from error

    return numbers


def refuse_nan(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A callback for numbers; no range refuses NaN."""
    if value != value:
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


def read_generator(path: Path, mean_latent: Path | None) -> tuple[Generator, GeneratorCard, str]:
    """Network, card and SHA-256 of the weights file. Raises CheckpointError, TrainingError."""
    if mean_latent is not None and path.suffix == NATIVE:
        raise TrainingError(f"--mean-latent is given, but {path} brings its own; leave it out")
    network, card = generator_from_path(path, mean_latent)
    return network, card, sha256_of_file(path)


def identity_of_generator(generator: Generator, sha256: str) -> dict[str, str]:
    """Of a recipe; --mean-latent is no part of the file that the hash is of."""
    return {"generator weights": sha256, "means of w": digest(generator.mapping.w_avg)}


def rows_from_text(text: str) -> tuple[int, int]:
    """FIRST:END, as in 64:448. Raises click.BadParameter."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise click.BadParameter(f"{text!r} is not FIRST:END, as in 64:448")
    return int(first), int(end)


distance_option = click.option(
    "--distance",
    "distance_name",
    type=click.Choice(["auto", "lpips", "structure"]),
    default="auto",
    help="Perceptual distance; auto: LPIPS where its package and weights are, else our own.",
)
vgg_weights_option = click.option(
    "--vgg-weights", type=FILE, help="torchvision's VGG-16 for LPIPS; absent: from torch's cache."
)
