"""What `evaluate` looks at are the labels that a bundle of the same weights would serve."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from checkpoints.interpreter import card_problem
from export.checks.reference import reference_outputs
from export.graph.spec import LabelSpec
from nets.features import Resize
from nets.interpreter import Interpreter
from nets.labels import Measure
from tests.training.sets import partly_labelled, tiny_generator, tiny_labels
from training.errors import LabelError
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import predictions
from training.interpreter.train import fit_interpreter
from training.label_crop import LabelCrop
from training.labels.labelled_set import LabelledSet

GENERATOR = tiny_generator()


def cropped(labels: LabelledSet) -> LabelledSet:
    assert labels.masks is not None and labels.depth is not None and labels.keypoints is not None
    return replace(
        labels,
        crop=LabelCrop(16, 3, 10),
        masks=labels.masks[:, 3:13],
        depth=labels.depth[:, 3:13],
        keypoints=labels.keypoints - np.array([0, 3, 0], np.float32),
    )


@cache
def fitted(score: str, resize: Resize) -> tuple[LabelledSet, InterpreterTrainConfig, Interpreter]:
    """Labels of which this is the first that a score can be of, and an ensemble of them."""
    labels = cropped(tiny_labels())
    if score != "segmentation":
        labels = replace(labels, masks=None, classes=None)
    if score == "depth":
        labels = replace(labels, keypoints=None)
    config = InterpreterTrainConfig(members=3, steps=60, pixels=128, resize=resize)
    return labels, config, fit_interpreter(GENERATOR, labels, config)


@pytest.mark.parametrize("resize", ["bilinear", pytest.param("nearest", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("score", "measure"),
    [
        ("segmentation", "jensen_shannon"),
        ("segmentation", "entropy"),
        ("segmentation", "least_confidence"),
        ("keypoints", "entropy"),
        ("depth", "jensen_shannon"),
    ],
)
def test_labels_and_scores_are_those_of_the_served_graphs_reference(
    score: str, measure: Measure, resize: Resize
) -> None:
    labels, config, interpreter = fitted(score, resize)
    card = card_from_fit(interpreter, labels, config, "0" * 64, "styledconv+const", [], measure)
    assert card.score_source == score
    assert card.score_measure == (measure if score == "segmentation" else "jensen_shannon")
    assert card_problem(card) is None
    spec = LabelSpec(
        grid=16,
        crop_top=3,
        height=10,
        width=16,
        resize=resize,
        tap_recipe="styledconv+const",
        score_source=card.score_source,
        score_measure=card.score_measure,
        keypoint_window_px=1 if card.keypoints is None else card.keypoints.window_px,
    )
    expected = reference_outputs(GENERATOR, interpreter, spec, labels.ws)
    for i, found in enumerate(predictions(GENERATOR, interpreter, card, labels.ws)):
        assert found.uncertainty == pytest.approx(expected["uncertainty"][i], abs=2e-6, rel=1e-3)
        if found.mask is not None:
            clear = expected["mask_margin"][i] > 1e-4
            np.testing.assert_array_equal(found.mask[clear], expected["mask"][i][clear])
        if found.keypoints is not None:
            np.testing.assert_allclose(found.keypoints, expected["keypoints"][i], atol=1e-3)
        assert found.depth is not None
        np.testing.assert_allclose(found.depth, expected["depth"][i], rtol=2e-3)


@pytest.mark.parametrize("start", [(4, 2), (2, 4)])
def test_labels_of_images_that_are_not_square_are_those_of_the_reference(
    start: tuple[int, int],
) -> None:
    generator, labels = tiny_generator(start), tiny_labels(start=start)
    assert labels.masks is not None and labels.keypoints is not None
    config = InterpreterTrainConfig(members=2, steps=60, pixels=128)
    interpreter = fit_interpreter(generator, labels, config)
    card = card_from_fit(interpreter, labels, config, "0" * 64, "styledconv+const", [])
    assert (card.start, card.height, card.width) == (start, 4 * start[0], 4 * start[1])
    assert card_problem(card) is None
    spec = LabelSpec(16, 0, card.height, card.width, "segmentation", start=start)
    expected = reference_outputs(generator, interpreter, spec, labels.ws)
    for i, found in enumerate(predictions(generator, interpreter, card, labels.ws)):
        assert found.mask is not None and found.depth is not None
        assert (found.mask == labels.masks[i]).mean() > 0.9
        clear = expected["mask_margin"][i] > 1e-4
        np.testing.assert_array_equal(found.mask[clear], expected["mask"][i][clear])
        np.testing.assert_allclose(found.depth, expected["depth"][i], rtol=2e-3)
        assert found.uncertainty == pytest.approx(expected["uncertainty"][i], abs=2e-6, rel=1e-3)
    with pytest.raises(LabelError, match=r"grid of \d+x\d+; this generator's images are 16x16"):
        fit_interpreter(GENERATOR, labels, config)


def test_labels_that_are_not_all_there_give_a_card_that_fits() -> None:
    labels = partly_labelled()
    config = InterpreterTrainConfig(members=1, steps=2)
    interpreter = fit_interpreter(GENERATOR, labels, config)
    card = card_from_fit(interpreter, labels, config, "0" * 64, "styledconv+const", ["CC0-1.0"])
    assert card.segmentation is not None and card.segmentation.ignore_id == 255
    assert card.depth is not None and card.depth.unit == "mm"
    assert card.keypoints is not None and card.keypoints.sigma_px == 1.5 * 16 / 64
