"""`python -m training interpreter`: labeled images -> weights of the label ensemble."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from click.core import ParameterSource

from checkpoints import made_folder, signals_held, write_interpreter, write_members
from nets.config import SQUARE
from nets.interpreter import HeadKind
from nets.labels import Measure
from training.errors import TrainingError
from training.images.image_set import check_generator, image_set_from_folder
from training.interpreter.card import card_from_fit
from training.interpreter.config import PUBLISHED, USUAL_MEASURE, InterpreterTrainConfig
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet, without_small_regions
from training.labels.options import LabelChoice, label_options
from training.options import (
    AT_LEAST_1,
    FOLDER,
    POSITIVE,
    check_suffix,
    device_option,
    force_option,
    generator_option,
    learning_rate_option,
    licence_option,
    mean_latent_option,
    numbers_from_text,
    read_generator,
    refuse_existing,
    seed_option,
    weights_out_option,
)
from training.resume import StateFile, state_path

SAVE_EVERY = 200  # steps
MAX_WIDTH = 1 << 16  # of a hidden layer


@click.command()
@generator_option
@mean_latent_option
@label_options
@weights_out_option("its card (.toml) and, until training ends, its state")
@force_option
@click.option(
    "--members",
    type=click.IntRange(1, 1024),
    default=InterpreterTrainConfig.members,
    help="Number of networks in the ensemble of each head.",
)
@click.option(
    "--head-members",
    type=(click.Choice(get_args(HeadKind)), click.IntRange(1, 1024)),
    multiple=True,
    metavar="HEAD N",
    help="Number of networks for one head instead of --members, e.g. depth 3; may be repeated.",
)
@click.option(
    "--steps",
    type=AT_LEAST_1,
    default=InterpreterTrainConfig.steps,
    help="Number of Adam steps.",
)
@click.option(
    "--pixels",
    type=click.IntRange(2),
    default=InterpreterTrainConfig.pixels,
    help="Number of pixels per step, split evenly over images.",
)
@learning_rate_option(
    InterpreterTrainConfig.learning_rate, "at the first step; it falls to 0 along a cosine"
)
@click.option(
    "--hidden",
    type=numbers_from_text(int),
    metavar="H1,H2",
    help="Widths of the two hidden layers.  [default: 128,32, or 256,128 with 32 classes or more]",
)
@click.option(
    "--resize",
    type=click.Choice(["bilinear", "nearest"]),
    default=InterpreterTrainConfig.resize,
    help="Interpolation of feature maps that are resized to the label grid.",
)
@click.option(
    "--sigma",
    "sigma_px",
    type=POSITIVE,
    help="Standard deviation of keypoint heatmaps in label pixels.  [default: 1.5/64 of the grid]",
)
@click.option(
    "--class-weights",
    type=numbers_from_text(float),
    metavar="W0,W1,...",
    help="Weights of the classes in the cross-entropy, one per class.  [default: all 1]",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "published"]),
    default=InterpreterTrainConfig.schedule,
    help="Training schedule. cosine: --steps, --pixels and --learning-rate; published: that of "
    "DatasetGAN, batches of 64 from all pixels, learning rate 1e-3, early stopping; a class with "
    "under 30 pixels in an image is background there.",
)
@click.option(
    "--score-measure",
    type=click.Choice(get_args(Measure)),
    help="Uncertainty of a pixel's class, whose largest tenth is an image's score: the members' "
    "divergence (jensen_shannon, the papers'), the entropy of their mean probabilities, or 1 minus "
    "the largest of these (least_confidence). `export bundle` can take another.",
    show_default=USUAL_MEASURE
    + ("" if USUAL_MEASURE == "jensen_shannon" else "; jensen_shannon with --schedule published"),
)
@device_option
@seed_option("Seed of the initial weights and of the pixels drawn.", InterpreterTrainConfig.seed)
@licence_option("the generator's")
@click.option(
    "--members-out",
    type=FOLDER,
    help="Folder to also write the members to, as model_<k>.pth in DatasetGAN's format.",
)
def interpreter(
    generator_path: Path,
    mean_latent: Path | None,
    choice: LabelChoice,
    out: Path,
    force: bool,
    device: torch.device,
    licences: tuple[str, ...],
    members_out: Path | None,
    score_measure: Measure | None,
    **settings: Any,
) -> None:
    """Train the label ensemble on a folder of labeled images.

    An interrupted training leaves its state beside --out; the same command resumes it.
    """
    config = InterpreterTrainConfig(**settings)
    refuse_ignored_options(config)
    check_config(config, out)
    refuse_existing(out, force)
    generator, generator_card, sha256 = read_generator(generator_path, mean_latent)
    images = image_set_from_folder(choice.folder)
    check_generator(images, generator.config, sha256, generator_path)
    images.check_files()
    labels = choice.read(images)
    if score_measure is not None and labels.masks is None:
        raise TrainingError(
            f"--score-measure is {score_measure}, a measure of classes, but {choice.folder} has no "
            "masks; leave it out"
        )
    if config.schedule == "published":
        labels = cleaned(labels)
    with made_folder(out.parent):  # fail now rather than after training
        recipe = {
            "generator weights": sha256,
            "labels": digest_of_labels(labels),
            **asdict(config),
        }
        state_file = StateFile(state_path(out), recipe, SAVE_EVERY)
        trained = fit_interpreter(generator.to(device), labels, config, state_file)
        card = card_from_fit(
            trained,
            labels,
            config,
            sha256,
            generator.config.tap_recipe,
            list(licences) or generator_card.licences,
            score_measure or measure_of_schedule(config),
        )
        with signals_held() as held:
            if members_out is not None:
                paths = write_members(members_out, trained)
                click.echo(f"wrote {paths[0]} to {paths[-1].name}")
            write_interpreter(out, trained, card)  # last, so that without it the next run goes on
            click.echo(f"wrote {out} and its card: {', '.join(head.kind for head in card.heads)}")
            state_file.remove()
            held.end(f"all of {out} was written")


def measure_of_schedule(config: InterpreterTrainConfig) -> Measure:
    """The measure without --score-measure; with the published schedule also the published one."""
    return "jensen_shannon" if config.schedule == "published" else USUAL_MEASURE


def cleaned(labels: LabelledSet) -> LabelledSet:
    """The labels as the published code trains on them; says what that leaves out."""
    labels, changed = without_small_regions(labels, PUBLISHED.least_pixels)
    for class_id, stems in changed.items():
        assert labels.classes is not None
        click.echo(
            f"{labels.classes.cards[class_id].name} counts as background in {', '.join(stems)}: "
            f"fewer than {PUBLISHED.least_pixels} pixels, which --schedule published leaves out"
        )
    return labels


def refuse_ignored_options(config: InterpreterTrainConfig) -> None:
    """Raises UsageError for options that the published schedule would ignore."""
    context = click.get_current_context()
    for name in ("steps", "pixels", "learning_rate"):
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if config.schedule == "published" and given:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(
                f"{option} has no effect with --schedule published, which sets it; leave it out"
            )


def check_config(config: InterpreterTrainConfig, out: Path) -> None:
    """Raises TrainingError for values that the option types do not refuse."""
    check_suffix(out)
    hidden = (1, 1) if config.hidden is None else config.hidden
    if len(hidden) != 2 or not all(0 < width <= MAX_WIDTH for width in hidden):
        raise TrainingError(
            f"--hidden is {hidden}; it takes two widths of up to {MAX_WIDTH}, such as 256,32"
        )
    kinds = [kind for kind, _ in config.head_members]
    if len(set(kinds)) < len(kinds):
        raise TrainingError(f"--head-members names {', '.join(kinds)}; it takes each head once")
    if kinds and config.schedule == "published":
        raise TrainingError(
            f"--head-members names {', '.join(kinds)}; --schedule published stops a member in "
            "all heads at once, so all heads need the same --members"
        )
    weights = config.class_weights
    if weights is not None and not (min(weights) >= 0 < max(weights) < float("inf")):
        raise TrainingError(f"--class-weights are {weights}; they must be at least 0, not all 0")


def digest_of_labels(labels: LabelledSet) -> str:
    """SHA-256 of everything that training reads from the labels."""
    count = 0 if labels.classes is None else len(labels.classes.cards)
    # State files have always hashed this text, so it keeps the crop's former class name.
    crop = labels.crop
    rows = f"Frame(grid={crop.grid}, crop_top={crop.crop_top}, height={crop.height})"
    if crop.start != SQUARE:
        rows += str(crop.start)
    text = f"({rows}, {labels.stems!r}, {count!r}, {labels.ignore_id!r})"
    digest = hashlib.sha256(text.encode())
    for array in (labels.ws, labels.masks, labels.keypoints, labels.depth):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
