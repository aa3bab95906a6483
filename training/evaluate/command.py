"""`python -m training evaluate`: an interpreter and held-out labels -> scores, table and plots."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click
import msgspec
import numpy as np
import torch

from checkpoints import Classes, InterpreterCard, interpreter_from_file
from nets.config import SQUARE
from nets.labels import Measure
from training.errors import LabelError, TrainingError
from training.evaluate.evaluation import evaluation_from_predictions
from training.evaluate.report import lines_from_evaluation, write_report
from training.evaluate.worst import sheet_of_worst
from training.images.image_set import check_generator, image_set_from_folder
from training.interpreter.card import images_trained_on
from training.interpreter.predict import predictions
from training.label_crop import LabelCrop
from training.labels.labelled_set import LabelledSet
from training.labels.options import LabelChoice, label_options
from training.options import (
    FILE,
    device_option,
    folder_out_option,
    generator_option,
    mean_latent_option,
    read_generator,
)

SHOWN_NAMES = 8  # of images in a warning
IGNORED = 255  # mask value of unlabeled pixels; an ensemble has at most 255 classes


@click.command()
@generator_option
@mean_latent_option
@label_options
@click.option(
    "--interpreter",
    "weights",
    type=FILE,
    required=True,
    help="Path to the interpreter's weights (.safetensors), with their card beside them.",
)
@click.option(
    "--score-measure",
    type=click.Choice(get_args(Measure)),
    help="Uncertainty of a pixel's class to test in place of the interpreter's own, as `export "
    "bundle` can serve it.  [default: the interpreter's]",
)
@folder_out_option("evaluation.json, evaluation.png and worst.png")
@device_option
def evaluate(
    generator_path: Path,
    mean_latent: Path | None,
    choice: LabelChoice,
    weights: Path,
    score_measure: Measure | None,
    out: Path,
    device: torch.device,
) -> None:
    """Compare an interpreter's labels with held-out labels.

    Prints and writes IoU of each class, PCK, depth errors, and how well the uncertainty finds wrong
    labels; worst.png shows the images whose labels differ most. Warns of images that the
    interpreter was trained on.
    """
    generator, _, sha256 = read_generator(generator_path, mean_latent)
    interpreter, card = interpreter_from_file(weights)
    if card.generator_sha256 != sha256:
        raise TrainingError(
            f"{weights} was trained on a generator of SHA-256 {card.generator_sha256}, "
            f"{generator_path} has {sha256}; give that generator"
        )
    if score_measure is not None:
        if card.score_source != "segmentation":
            raise TrainingError(
                f"--score-measure is {score_measure}, a measure of classes, but the score of "
                f"{weights} is of {card.score_source}; leave it out"
            )
        card = msgspec.structs.replace(card, score_measure=score_measure)
    generator.to(device)
    interpreter.to(device)
    images = image_set_from_folder(choice.folder)
    check_generator(images, generator.config, sha256, generator_path)
    images.check_files()
    truth = with_meaning_of(card, choice.read(images), weights, choice.folder)
    trained_on = images_trained_on(card, truth)
    click.echo(text_from_trained_on(trained_on, len(truth), weights), err=True, nl=False)
    predicted = list(predictions(generator, interpreter, card, truth.ws))
    evaluation = evaluation_from_predictions(predicted, card, truth)
    write_report(out, evaluation, trained_on)
    shown = np.stack([images.image(images.stems.index(stem)) for stem in truth.stems])
    worst = sheet_of_worst(shown, predicted, truth)
    click.echo("\n".join(lines_from_evaluation(evaluation)))
    click.echo(f"\nplots: {out / 'evaluation.png'}")
    if worst is not None:
        worst.save(out / "worst.png")
        click.echo(f"worst images: {out / 'worst.png'}")


def text_from_trained_on(trained_on: list[str] | None, images: int, weights: Path) -> str:
    """What `evaluate` says first about images that were trained on; empty if there are none."""
    if trained_on is None:
        return (
            f"note: the card of {weights} does not record its training images, so none of these "
            "can be recognized\n"
        )
    if not trained_on:
        return ""
    names = ", ".join(trained_on[:SHOWN_NAMES]) + (", ..." if trained_on[SHOWN_NAMES:] else "")
    return (
        f"warning: {weights} was trained on {len(trained_on)} of these {images} images ({names}); "
        "its scores are too good: leave them out, or `sample` others with another --seed\n"
    )


def with_meaning_of(
    card: InterpreterCard, truth: LabelledSet, weights: Path, folder: Path
) -> LabelledSet:
    """The labels with the interpreter's ids of classes and order of keypoints, matched by name.

    Raises LabelError for another crop, and for a name that the interpreter does not have.
    """
    crop = truth.crop
    of_card = LabelCrop(card.grid, card.crop_top, card.height, card.start or SQUARE)
    if of_card != crop:
        raise LabelError(
            f"{weights} labels {card.width}x{card.height} pixels of a grid of {card.grid} from row "
            f"{card.crop_top}; {folder} has {crop} of {crop.grid} from row {crop.crop_top}"
        )

    def places(what: str, trained: Sequence[str], labelled: Sequence[str]) -> list[int]:
        unknown = [name for name in labelled if name not in trained]
        if unknown:
            raise LabelError(
                f"{weights} was trained on the {what} {', '.join(trained)}; {folder} has "
                f"{', '.join(labelled)}, of which it does not know {', '.join(unknown)}"
            )
        return [trained.index(name) for name in labelled]

    if card.segmentation and truth.classes is not None and truth.masks is not None:
        cards = list(card.segmentation.classes)
        ids = np.full(256, IGNORED, np.uint8)
        found = places("classes", [c.name for c in cards], [c.name for c in truth.classes.cards])
        ids[: len(found)] = found
        truth = replace(
            truth, classes=Classes(cards, IGNORED), masks=ids[truth.masks], ignore_id=IGNORED
        )
    if card.keypoints and truth.keypoints is not None:
        names = card.keypoints.names
        points = np.zeros((len(truth), len(names), 3), np.float32)  # a point without a name: absent
        points[np.isnan(truth.keypoints).any((1, 2))] = np.nan
        points[:, places("keypoints", names, truth.keypoint_names)] = truth.keypoints
        truth = replace(
            truth, keypoints=points, keypoint_names=tuple(names),
            skeleton=tuple((a, b) for a, b in card.keypoints.skeleton),
        )  # fmt: skip
    return truth
