"""A report's figures have their counts, training images are recognized, the worst are shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints import InterpreterCard
from nets.interpreter import Interpreter
from tests.training.sets import tiny_labels
from training.evaluate.command import text_from_trained_on
from training.evaluate.evaluation import Evaluation, evaluation_from_predictions
from training.evaluate.report import lines_from_evaluation
from training.evaluate.worst import sheet_of_worst
from training.interpreter.card import card_from_fit, images_trained_on
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import Prediction
from training.interpreter.train import head_configs
from training.labels.labelled_set import LabelledSet


def labels_of(images: int) -> LabelledSet:
    """Labels of images a, b, ..., with hashes of their pixels; every mask is of class 0."""
    hashes = tuple(f"{i:016x}".ljust(64, "0") for i in range(images))
    masks = np.zeros((images, 16, 16), np.uint8)
    return replace(tiny_labels(images), masks=masks, pixels_sha256=hashes)


def card_of(labels: LabelledSet) -> InterpreterCard:
    config = InterpreterTrainConfig(members=1, hidden=(4, 4))
    network = Interpreter(head_configs(labels, config, 48))
    return card_from_fit(network, labels, config, "0" * 64, "styledconv+const", [])


def predicted(labels: LabelledSet) -> list[Prediction]:
    """Image i has i wrong rows, and is the more uncertain the more are wrong."""
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    found = []
    for i in range(len(labels)):
        mask = labels.masks[i].copy()
        mask[:i] = 1
        moved = labels.keypoints[i] + np.array([i, 0, 0], np.float32)
        found.append(
            Prediction(mask, moved, labels.depth[i] + i, i, np.zeros((16, 16), np.float32))
        )
    return found


def evaluation_of(images: int) -> Evaluation:
    labels = labels_of(images)
    return evaluation_from_predictions(predicted(labels), card_of(labels), labels)


@pytest.mark.parametrize(("images", "left_out"), [(5, 1), (8, 1), (10, 1), (24, 2)])
def test_table_and_sentences_leave_out_the_same_number_of_images(
    images: int, left_out: int
) -> None:
    evaluation = evaluation_of(images)
    assert evaluation.kept is not None and evaluation.kept.images == images - left_out
    said = "\n".join(lines_from_evaluation(evaluation))
    assert f"the most uncertain tenth, {left_out} of {images} images" in said
    assert f"less) without the most uncertain {left_out} of {images}\n" in said
    assert f"without the worst {left_out} of {images}," in said
    before, after = np.arange(images).mean(), np.arange(images - left_out).mean()
    if images <= 16:
        assert f"({1 - after / before:.0%} less)" in said


def test_too_few_images_for_a_tenth_are_said_to_be_too_few() -> None:
    said = "\n".join(lines_from_evaluation(evaluation_of(4)))
    assert "0 of 4 images" in said and "a tenth of 4 images is none to leave out" in said
    assert "%" not in said


def test_an_error_that_rises_is_not_said_to_fall() -> None:
    labels = labels_of(8)
    found = [replace(p, uncertainty=-float(i)) for i, p in enumerate(predicted(labels))]
    said = "\n".join(
        lines_from_evaluation(evaluation_from_predictions(found, card_of(labels), labels))
    )
    assert "rises to" in said and "more) without" in said and "falls" not in said


def test_images_that_were_trained_on_are_recognized_by_pixels_or_latents() -> None:
    labels = labels_of(6)
    card = card_of(labels.rows(np.array([0, 1, 2])))
    others = labels.rows(np.array([3, 4, 5]))
    assert images_trained_on(card, labels) == ["a", "b", "c"]
    assert images_trained_on(card, others) == []
    moved = replace(labels, ws=labels.ws + 1)  # inverted anew
    assert images_trained_on(card, moved) == ["a", "b", "c"]
    smaller = replace(labels, pixels_sha256=())  # on another grid
    assert images_trained_on(card, smaller) == ["a", "b", "c"]
    assert images_trained_on(card_of(tiny_labels(3)), labels) is None  # an older card


def test_a_warning_names_the_images_and_the_way_out() -> None:
    path = Path("i.safetensors")
    said = text_from_trained_on(["000", "001"], 8, path)
    assert said.startswith("warning: i.safetensors was trained on 2 of these 8 images (000, 001)")
    assert "--seed" in said and said.count("\n") == 1
    assert text_from_trained_on([], 8, path) == ""
    assert "does not record" in text_from_trained_on(None, 8, path)


@pytest.mark.parametrize("kind", ["segmentation", "keypoints", "depth"])
def test_the_sheet_shows_the_worst_images_first(kind: str) -> None:
    labels = labels_of(12)
    if kind != "segmentation":
        labels = replace(labels, masks=None)
    if kind == "depth":
        labels = replace(labels, keypoints=None)
    images = np.zeros((12, 16, 16, 3), np.uint8)
    images[..., 0] = np.arange(12)[:, None, None] * 10
    full = labels_of(12)
    sheet = sheet_of_worst(images, predicted(full), labels)
    assert isinstance(sheet, Image.Image)
    pixels = np.array(sheet)
    worst = np.flatnonzero((pixels == [110, 0, 0]).all(axis=2).any(axis=1))
    second = np.flatnonzero((pixels == [100, 0, 0]).all(axis=2).any(axis=1))
    assert len(worst) == len(second) == 192 and worst[0] < second[0]
    assert not (pixels == [30, 0, 0]).all(axis=2).any()  # the ninth worst
