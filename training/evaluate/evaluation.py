"""An interpreter's predictions and held-out labels -> scores and sparsification."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checkpoints import InterpreterCard
from nets.generator import Generator
from nets.interpreter import Interpreter
from training.evaluate.metrics import Scores, image_errors, scores_from_predictions
from training.evaluate.sparsification import (
    PixelTenths,
    Sparsification,
    kept_count,
    sparsification_from_scores,
    tenths_from_pixels,
)
from training.interpreter.predict import Prediction, predictions
from training.labels.labelled_set import LabelledSet


@dataclass(frozen=True)
class Evaluation:
    """Everything the report shows. The optional fields need a card with a score source."""

    card: InterpreterCard
    class_names: list[str]
    depth_unit: str
    all: Scores
    kept: Scores | None  # without the most uncertain tenth of images
    sparsification: Sparsification | None
    pixel_tenths: PixelTenths | None  # only if the score is from segmentation


def evaluation_from_interpreter(
    generator: Generator, interpreter: Interpreter, card: InterpreterCard, truth: LabelledSet
) -> Evaluation:
    """Predicts labels for the latents of `truth` and compares them with its labels."""
    predicted = list(predictions(generator, interpreter, card, truth.ws))
    return evaluation_from_predictions(predicted, card, truth)


def evaluation_from_predictions(
    predicted: list[Prediction], card: InterpreterCard, truth: LabelledSet
) -> Evaluation:
    """Compares predictions, in the order of the images of `truth`, with its labels."""
    kept = sparsification = tenths = None
    if card.score_source is not None:
        scores = np.array([p.uncertainty for p in predicted], dtype=np.float64)
        errors = image_errors(predicted, truth, card.score_source)
        if np.isfinite(errors).any():
            sparsification = sparsification_from_scores(scores, errors)
        rows = np.sort(np.argsort(scores, kind="stable")[: kept_count(len(scores))])
        kept = scores_from_predictions([predicted[i] for i in rows], truth.rows(rows))
    if card.score_source == "segmentation" and truth.masks is not None:
        tenths = _pixel_tenths(predicted, truth.masks, truth.ignore_id)
    return Evaluation(
        card=card,
        class_names=[] if truth.classes is None else [c.name for c in truth.classes.cards],
        depth_unit=truth.depth_unit,
        all=scores_from_predictions(predicted, truth),
        kept=kept,
        sparsification=sparsification,
        pixel_tenths=tenths,
    )


def _pixel_tenths(
    predicted: list[Prediction], masks: NDArray[np.uint8], ignore_id: int
) -> PixelTenths:
    uncertainty, wrong = [], []
    for labels, mask in zip(predicted, masks, strict=True):
        assert labels.mask is not None and labels.uncertainty_map is not None  # the caller checks
        known = mask != ignore_id
        uncertainty.append(labels.uncertainty_map[known])
        wrong.append((labels.mask != mask)[known])
    return tenths_from_pixels(np.concatenate(uncertainty), np.concatenate(wrong))
