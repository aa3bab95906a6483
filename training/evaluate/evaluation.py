"""An interpreter on held-out labelled images: scores, and whether its uncertainty is of use."""

from dataclasses import dataclass

import numpy as np

from checkpoints import InterpreterCard
from nets.generator import Generator
from nets.interpreter import Interpreter
from training.evaluate.metrics import Scores, image_errors, scores_of
from training.evaluate.sparsification import (
    Calibration,
    PixelCalibration,
    calibration_of,
    pixel_calibration_of,
)
from training.interpreter.predict import Prediction, predictions
from training.labels.labelled_set import LabelledSet

FRACTION_KEPT = 0.9


@dataclass(frozen=True)
class Evaluation:
    """Everything the report shows."""

    card: InterpreterCard
    class_names: list[str]
    depth_unit: str
    all: Scores
    kept: Scores | None  # without the most uncertain tenth; None without a score
    calibration: Calibration | None
    pixels: PixelCalibration | None  # of segmentation


def evaluate(
    generator: Generator, interpreter: Interpreter, card: InterpreterCard, truth: LabelledSet
) -> Evaluation:
    """Labels every image of `truth` again and compares."""
    predicted = list(predictions(generator, interpreter, card, truth.ws))
    return evaluation_of(predicted, card, truth)


def evaluation_of(
    predicted: list[Prediction], card: InterpreterCard, truth: LabelledSet
) -> Evaluation:
    """The same of labels that are made already, [n] in the order of the truth."""
    kept = calibration = None
    if card.score_source is not None:
        scores = np.array([p.uncertainty for p in predicted], dtype=np.float64)
        calibration = calibration_of(scores, image_errors(predicted, truth, card.score_source))
        rows = np.sort(np.argsort(scores, kind="stable")[: kept_count(len(scores))])
        kept = scores_of([predicted[i] for i in rows], truth.rows(rows))
    return Evaluation(
        card=card,
        class_names=[] if truth.classes is None else [c.name for c in truth.classes.cards],
        depth_unit=truth.depth_unit,
        all=scores_of(predicted, truth),
        kept=kept,
        calibration=calibration,
        pixels=_pixels(predicted, truth) if card.score_source == "segmentation" else None,
    )


def kept_count(images: int) -> int:
    """How many images are left without the most uncertain tenth, at least one."""
    return max(1, round(images * FRACTION_KEPT))


def _pixels(predicted: list[Prediction], truth: LabelledSet) -> PixelCalibration | None:
    if truth.masks is None:
        return None
    uncertainty, wrong = [], []
    for labels, mask in zip(predicted, truth.masks, strict=True):
        assert labels.mask is not None and labels.uncertainty_map is not None  # there is a score
        known = mask != truth.ignore_id
        uncertainty.append(labels.uncertainty_map[known])
        wrong.append((labels.mask != mask)[known])
    return pixel_calibration_of(np.concatenate(uncertainty), np.concatenate(wrong))
