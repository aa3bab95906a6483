"""Command-line options shared by several training subcommands, and the parsers behind them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from checkpoints import NATIVE, GeneratorCard, generator_from_path, sha256_of_file
from nets.generator import Generator
from training.errors import TrainingError
from training.resume import digest, state_path

Option = Callable[[Callable[..., Any]], Callable[..., Any]]  # what click.option returns
Number = TypeVar("Number", int, float)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
AT_LEAST_0, AT_LEAST_1 = click.IntRange(0), click.IntRange(1)
NOT_NEGATIVE, POSITIVE = click.FloatRange(0), click.FloatRange(0, min_open=True)
MAX_COUNT = 10**12  # of anything without a limit of its own
MAX_TORCH_SEED = 2**63 - 1  # of weights and of what torch draws
MAX_STREAM_SEED = 2**64 - 1  # of samples, as in requests to the service

generator_option = click.option(
    "--generator",
    "generator_path",
    type=FILE,
    required=True,
    help="Path to the generator's weights: a .safetensors file with its card (.toml) beside it, an "
    "official StyleGAN2 .pkl (PyTorch or TensorFlow), a StyleGAN3 .pkl, a rosinality .pt, or a "
    "DatasetGAN StyleGAN1 .pt.",
)
mean_latent_option = click.option(
    "--mean-latent",
    type=FILE,
    help="Path to the mean of w (.npy), for a .pt file that lacks it; `export bundle` needs the "
    "same one, because another changes about 1 percent of a mask's pixels.  [default: measured "
    "over samples]",
)


def torch_device(name: str) -> torch.device:
    """Parses a device name and checks that torch can compute there. Raises click.BadParameter."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" has no data to copy
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
resume_option = click.option(
    "--resume", is_flag=True, help="Resume from the state beside --out, if it exists."
)
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


def options_together(*options: Option) -> Option:
    """One decorator of several options; --help lists them in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


truncation_options = options_together(
    click.option(
        "--psi",
        type=click.FloatRange(0, 2),
        help="Truncation psi; 1: no truncation.  [default: the generator card's]",
    ),
    click.option(
        "--cutoff",
        type=AT_LEAST_0,
        help="Number of first rows of w+ that --psi applies to.  [default: the generator card's]",
    ),
)


def weights_out_option(beside: str, *, what: str = "Weights file", required: bool = True) -> Option:
    """--out, a .safetensors file; `beside` names the files that are written beside it."""
    return click.option(
        "--out",
        type=FILE,
        required=required,
        help=f"{what} to write ({NATIVE}), with {beside} beside it.",
    )


def folder_out_option(content: str) -> Option:
    """--out, a folder to write `content` to."""
    return click.option("--out", type=FOLDER, required=True, help=f"Folder to write {content} to.")


def crop_options(images: str = "the images", default: str = "") -> Option:
    """--grid and --rows of `images`; `default` names what is asked before the generator."""
    return options_together(
        click.option(
            "--grid",
            type=int,
            help=f"Side in pixels of the label grid, to which {images} are reduced; the longer "
            "side where a generator's constant is 4 x 2 or 2 x 4.  "
            f"[default: {default}the generator's resolution, at most 512]",
        ),
        click.option(
            "--rows",
            type=rows_from_text,
            metavar="FIRST:END",
            help=f"Rows FIRST to END - 1 of the label grid, to which {images} are cropped, e.g. "
            f"64:448 for cars.  [default: {default}all]",
        ),
    )


def batch_option(
    help: str, default: int | None = None, *, name: str = "batch", least: int = 1
) -> Option:
    """--batch, passed on as `name`."""
    return click.option("--batch", name, type=click.IntRange(least), default=default, help=help)


def seed_option(help: str, default: int | None, most: int = MAX_TORCH_SEED) -> Option:
    """--seed, from 0 to `most`."""
    return click.option("--seed", type=click.IntRange(0, most), default=default, help=help)


def learning_rate_option(default: float, course: str) -> Option:
    """--learning-rate of Adam; `course` says when it applies."""
    return click.option(
        "--learning-rate", type=POSITIVE, default=default, help=f"Learning rate of Adam {course}."
    )


def every_option(what: str) -> Option:
    """--every, the number of steps between two of `what`."""
    return click.option(
        "--every", type=AT_LEAST_1, default=250, help=f"Number of steps between {what}."
    )


def licence_option(default: str) -> Option:
    """--licence, passed on as `licences`."""
    return click.option(
        "--licence",
        "licences",
        multiple=True,
        help=f"License tag for the card; may be repeated.  [default: {default}]",
    )


def object_options(default: int) -> Option:
    """--objects and --views of a source of object sets; `default` objects of a service."""
    return options_together(
        click.option(
            "--objects",
            type=AT_LEAST_1,
            help="Number of objects to take from --source.  "
            f"[default: {default} of a service, all of a folder]",
        ),
        click.option(
            "--views",
            type=AT_LEAST_1,
            help="Number of views to take of each object.  [default: all]",
        ),
    )


def check_suffix(path: Path) -> None:
    """Raises TrainingError for an --out that is no .safetensors file; its card is beside it."""
    if path.suffix != NATIVE:
        raise TrainingError(f"--out is {path}; weights are written as {NATIVE}")


def refuse_existing(path: Path, force: bool) -> None:
    """Raises TrainingError if `path` exists and --force was not given."""
    if path.exists() and not force:
        raise TrainingError(f"{path} exists; give --force to replace it, or another name")


def can_resume(out: Path, resume: bool) -> bool:
    """Whether to load a state: --resume was given, and weights or a state exist.

    A job that is always started with --resume has neither on its first run, so training then starts
    at step 0. Raises TrainingError for weights without a state.
    """
    if not resume or state_path(out).exists():
        return resume
    if out.exists():
        raise TrainingError(
            f"{out} exists, and not {state_path(out).name}, which its training would resume from; "
            "name another --out, or delete it to train from step 0"
        )
    click.echo(f"{state_path(out)} is not there yet; training starts at step 0")
    return False


def numbers_from_text(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """Returns a parser of comma-separated numbers, each read by `kind`."""

    def numbers(text: str) -> tuple[Number, ...]:
        try:
            found = tuple(kind(part) for part in text.split(","))
            finite = all(map(math.isfinite, found))  # ranges pass over nan
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers, such as 1,2") from error
        except OverflowError:  # a whole number that no float holds
            finite = False
        if not finite:
            raise click.BadParameter(f"{text!r} has a number that is not finite")
        return found

    return numbers


def refuse_nan(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Option callback that refuses NaN, which click.FloatRange lets through."""
    if value != value:
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


def refuse_infinite(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Option callback that refuses infinity, which a range without a maximum lets through, and
    NaN."""
    refuse_nan(context, parameter, value)
    if value in (math.inf, -math.inf):
        raise click.BadParameter(f"{value} is not finite", context, parameter)
    return value


def refuse_huge(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Option callback that refuses a whole number that no array could have as its extent."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and number > MAX_COUNT:
            raise click.BadParameter(f"{number} is over {MAX_COUNT}", context, parameter)
    return value


def show_missing_default(parameter: click.Parameter) -> None:
    """Lets --help say that an option without a default has none."""
    if not isinstance(parameter, click.Option) or parameter.required or parameter.is_flag:
        return
    record = parameter.get_help_record(click.Context(click.Command(None), show_default=True))
    if record is not None and "default: " not in record[1]:
        parameter.show_default = "none"


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
