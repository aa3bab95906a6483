"""python -m training interpreter: labelled images -> weights of the label ensemble."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from click.core import ParameterSource

from checkpoints import write_interpreter, write_members
from nets.interpreter import HeadKind
from training.errors import TrainingError
from training.images.image_set import check_generator, image_set_from_folder
from training.interpreter.card import card_from_fit
from training.interpreter.config import FitConfig
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet, LabelPaths, labelled_set
from training.options import (
    FILE,
    FOLDER,
    device_option,
    force_option,
    generator_option,
    label_options,
    mean_latent_option,
    numbers_from_text,
    read_generator,
    refuse_existing,
)
from training.resume import StateFile, state_path

SUFFIX = ".safetensors"
SAVE_EVERY = 200  # steps


@click.command()
@generator_option
@mean_latent_option
@label_options
@click.option("--out", type=FILE, required=True, help=f"Weights file to write ({SUFFIX}).")
@force_option
@click.option("--members", type=click.IntRange(1, 1024), default=FitConfig.members)
@click.option(
    "--head-members",
    type=(click.Choice(get_args(HeadKind)), click.IntRange(1, 1024)),
    multiple=True,
    metavar="HEAD N",
    help="Members of one head in place of --members, as depth 3; may be repeated.",
)
@click.option("--steps", type=click.IntRange(1), default=FitConfig.steps, help="Of Adam.")
@click.option(
    "--pixels", type=click.IntRange(2), default=FitConfig.pixels, help="Of a step, from all images."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=FitConfig.learning_rate,
    help="At the start; cosine to zero.",
)
@click.option(
    "--hidden",
    type=numbers_from_text(int),
    metavar="H1,H2",
    help="Widths of the layers, as 256,32; absent: 128,32, and 256,128 from 32 classes on.",
)
@click.option(
    "--resize",
    type=click.Choice(["bilinear", "nearest"]),
    default=FitConfig.resize,
    help="How feature maps meet the label grid.",
)
@click.option(
    "--sigma",
    "sigma_px",
    type=click.FloatRange(0, min_open=True),
    help="Of keypoints' Gaussian targets, in label pixels; absent: 1.5/64 of the grid.",
)
@click.option(
    "--class-weights",
    type=numbers_from_text(float),
    metavar="W0,W1,...",
    help="Of the cross-entropy, one for each class.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "published"]),
    default=FitConfig.schedule,
    help="published: DatasetGAN's batches of 64 of all pixels, its rate and its stopping rule, in "
    "place of --steps, --pixels and --learning-rate.",
)
@device_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=FitConfig.seed)
@click.option("--licence", "licences", multiple=True, help="Licence tag; may be repeated.")
@click.option("--members-out", type=FOLDER, help="Also write model_<k>.pth, as published, here.")
def interpreter(
    generator_path: Path,
    mean_latent: Path | None,
    folder: Path,
    masks: Path | None,
    classes: Path | None,
    keypoints: Path | None,
    depth: Path | None,
    out: Path,
    force: bool,
    device: torch.device,
    licences: tuple[str, ...],
    members_out: Path | None,
    **settings: Any,
) -> None:
    """Trains the label ensemble on a folder of labelled images.

    An unfinished fit lies beside --out, and the same command takes it up again.
    """
    config = FitConfig(**settings)
    refuse_settings_of_ours(config)
    check_config(config, out)
    refuse_existing(out, force)
    generator, generator_card, sha256 = read_generator(generator_path, mean_latent)
    images = image_set_from_folder(folder)
    check_generator(images, generator.config, sha256, generator_path)
    images.check_files()
    labels = labelled_set(images, LabelPaths(classes, masks, keypoints, depth))
    click.echo(f"{len(labels)} of {len(images)} images have labels")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the training, not after
    recipe = {
        "generator weights": sha256,
        "labels": digest_of_labels(labels),
        **asdict(config),
    }
    unfinished = StateFile(state_path(out), recipe, SAVE_EVERY)
    trained = fit_interpreter(generator.to(device), labels, config, unfinished)
    card = card_from_fit(
        trained,
        labels,
        config,
        sha256,
        generator.config.tap_recipe,
        list(licences) or generator_card.licences,
    )
    write_interpreter(out, trained, card)
    click.echo(f"wrote {out} and its card: {', '.join(head.kind for head in card.heads)}")
    if members_out is not None:
        paths = write_members(members_out, trained)
        click.echo(f"wrote {paths[0]} to {paths[-1].name}")
    unfinished.remove()


def refuse_settings_of_ours(config: FitConfig) -> None:
    """Raises UsageError for what the published schedule decides by itself."""
    context = click.get_current_context()
    for name in ("steps", "pixels", "learning_rate"):
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if config.schedule == "published" and given:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(
                f"{option} has no meaning with --schedule published, which has its own"
            )


def check_config(config: FitConfig, out: Path) -> None:
    """Raises TrainingError for values that options alone do not refuse."""
    if out.suffix != SUFFIX:
        raise TrainingError(f"--out is {out}; weights are written as {SUFFIX}")
    if config.hidden is not None and not (len(config.hidden) == 2 and min(config.hidden) > 0):
        raise TrainingError(f"--hidden is {config.hidden}; it takes two widths, as 256,32")
    kinds = [kind for kind, _ in config.head_members]
    if len(set(kinds)) < len(kinds):
        raise TrainingError(f"--head-members names {', '.join(kinds)}; it takes each head once")
    if kinds and config.schedule == "published":
        raise TrainingError(
            f"--head-members names {', '.join(kinds)}; --schedule published ends a member of all "
            "heads at once, so all have --members"
        )
    weights = config.class_weights
    if weights is not None and not (min(weights) >= 0 < max(weights) < float("inf")):
        raise TrainingError(f"--class-weights are {weights}; they must be at least 0, not all 0")


def digest_of_labels(labels: LabelledSet) -> str:
    """A hash of all that a fit sees of them."""
    count = 0 if labels.classes is None else len(labels.classes.cards)
    seen = (labels.crop, labels.stems, count, labels.ignore_id)
    digest = hashlib.sha256(repr(seen).encode())
    for array in (labels.ws, labels.masks, labels.keypoints, labels.depth):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
