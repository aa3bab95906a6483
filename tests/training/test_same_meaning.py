"""`evaluate` compares classes and keypoints by name, whatever ids the held-out labels give them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from checkpoints import classes_from_names
from tests.checkpoints.test_interpreter import card, interpreter
from training.errors import LabelError
from training.evaluate.command import with_meaning_of
from training.label_crop import LabelCrop
from training.labels.labelled_set import LabelledSet

CARD = card(interpreter())  # classes sky, tür, "x"; keypoints a, b; 12x16 of a grid of 16
ONE, TWO = Path("i.safetensors"), Path("held-out")


def labels(classes: list[str], keypoints: tuple[str, ...]) -> LabelledSet:
    """Masks of 0, 1 and unlabeled (9), points at x = 1, 2, ... and an image without points."""
    masks = np.tile(np.array([[0, 1, 9, 0]], np.uint8), (2, 12, 4))
    points = np.full((2, len(keypoints), 3), np.nan, np.float32)
    points[0] = [[1 + k, 5, 1] for k in range(len(keypoints))]
    return LabelledSet(
        LabelCrop(16, 2, 12), ("p", "q"), np.zeros((2, 1, 1), np.float32),
        classes=classes_from_names(classes), masks=masks, ignore_id=9,
        keypoints=points, keypoint_names=keypoints,
    )  # fmt: skip


def test_other_ids_of_the_same_names_are_translated() -> None:
    truth = with_meaning_of(CARD, labels(['"x"', "sky"], ("b", "a")), ONE, TWO)
    assert truth.classes is not None and truth.masks is not None and truth.keypoints is not None
    assert [c.name for c in truth.classes.cards] == ["sky", "tür", '"x"']
    assert truth.masks[0, 0, :4].tolist() == [2, 0, 255, 2] and truth.ignore_id == 255
    assert truth.keypoint_names == ("a", "b")
    assert truth.keypoints[0].tolist() == [[2, 5, 1], [1, 5, 1]]
    assert np.isnan(truth.keypoints[1]).all()


def test_a_keypoint_that_no_held_out_image_shows_is_absent() -> None:
    truth = with_meaning_of(CARD, labels(["sky"], ("b",)), ONE, TWO)
    assert truth.keypoints is not None
    assert truth.keypoints[0].tolist() == [[0, 0, 0], [1, 5, 1]]


@pytest.mark.parametrize(
    ("classes", "keypoints", "words"),
    [
        (["sky", "cloud"], ("a", "b"), "trained on the classes sky, tür, .*not know cloud$"),
        (["sky", "tür"], ("a", "c"), "trained on the keypoints a, b; .*not know c$"),
    ],
)
def test_an_unknown_name_is_refused(
    classes: list[str], keypoints: tuple[str, ...], words: str
) -> None:
    with pytest.raises(LabelError, match=words):
        with_meaning_of(CARD, labels(classes, keypoints), ONE, TWO)


def test_another_crop_is_refused() -> None:
    other = replace(labels(["sky"], ("a",)), crop=LabelCrop(16, 0, 12))
    with pytest.raises(LabelError, match="of a grid of 16 from row 2; held-out has"):
        with_meaning_of(CARD, other, ONE, TWO)
