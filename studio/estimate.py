"""How good an ensemble's labels are on images that it has not seen: labels on disk -> mean IoU.

Every labeled image is left out once: with up to FOLDS images each alone (leave-one-out), with more
in FOLDS groups of nearly equal size (k-fold). An ensemble trained without it labels it, and the IoU
of each class is pooled over all images. These ensembles are smaller than those of a round, and
begin without its weights, which have seen the image. So the figure is rather too low for the next
round, and for the export more so.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from checkpoints import GeneratorCard
from nets.generator import Generator
from nets.interpreter import HeadKind
from training.evaluate.metrics import Scores, scores_from_predictions
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import Prediction, predictions
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet

FOLDS = 8
MIN_IMAGES = 2  # without one of them, one is left to train on
CONFIG = InterpreterTrainConfig(members=3, steps=160, pixels=512)


def folds_of_rows(count: int) -> list[NDArray[np.int64]]:
    """Rows that are left out together; each of `count` rows is in one fold."""
    folds = min(count, FOLDS)
    return [np.arange(first, count, folds) for first in range(folds)]


def with_masks(labels: LabelledSet) -> LabelledSet | None:
    """The images that have a labeled pixel, with their masks alone; None if these are too few."""
    if labels.masks is None or labels.classes is None:
        return None
    rows = np.flatnonzero((labels.masks != labels.ignore_id).any(axis=(1, 2)))
    if len(rows) < MIN_IMAGES:
        return None
    chosen = labels.rows(rows)
    return LabelledSet(
        chosen.crop, chosen.stems, chosen.ws, chosen.classes, chosen.masks, chosen.ignore_id
    )


def held_out_scores(
    generator: Generator,
    card: GeneratorCard,
    sha256: str,
    labels: LabelledSet,
    tell: Callable[[int, int], None],
    go_on: Callable[[], None],
    config: InterpreterTrainConfig = CONFIG,
) -> Scores:
    """IoU of masks [n, H, W] by ensembles that have not seen their image.

    `tell` gets the folds that are done and their number; `go_on` is called after each step of
    training and each image, and ends all by raising. Raises TrainingError.
    """
    folds = folds_of_rows(len(labels))
    found: list[Prediction | None] = [None] * len(labels)

    def report(step: int, losses: dict[HeadKind, float]) -> None:
        go_on()

    for done, fold in enumerate(folds):
        tell(done, len(folds))
        rest = labels.rows(np.setdiff1d(np.arange(len(labels)), fold))
        trained = fit_interpreter(generator, rest, config, report=report)
        made = card_from_fit(
            trained, rest, config, sha256, generator.config.tap_recipe, card.licences
        )
        for row, one in zip(fold, predictions(generator, trained, made, labels.ws[fold]),
                            strict=True):  # fmt: skip
            found[row] = one
            go_on()
    return scores_from_predictions([one for one in found if one is not None], labels)
