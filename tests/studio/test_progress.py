"""Minutes of work, and estimates on images that were left out: kept, honest, given up for work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from checkpoints import Classes, generator_from_file, sha256_of_file
from studio.estimate import FOLDS, folds_of_rows, held_out_scores, with_masks
from studio.learning import NewWork
from studio.progress import IDLE_S, PROGRESS, Estimate, ProgressLog
from studio.project import Project
from tests.studio.conftest import CARDS
from training.images.image_set import image_set_from_folder
from training.interpreter.config import InterpreterTrainConfig
from training.labels.labelled_set import LabelledSet


def estimate(images: int, miou: float = 0.5) -> Estimate:
    return Estimate(images=images, folds=images, seconds=9.0, miou=miou, iou={"a": miou, "b": None})


QUICK = InterpreterTrainConfig(members=2, steps=80, pixels=256)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_is_time_with_activity_and_outlives_the_server(tmp_path: Path) -> None:
    clock = Clock()
    log = ProgressLog(tmp_path, clock)
    for seconds in (0, 10, 20, IDLE_S + 1, 5, 3600, IDLE_S):
        clock.now += seconds
        log.note_activity()
    assert log.seconds == 10 + 20 + 5 + IDLE_S, "the first is no time, and a person was away twice"
    log.add(estimate(3))
    log.add(estimate(2))
    log.add(estimate(3, 0.75))
    log.save()
    again = ProgressLog(tmp_path, Clock())
    assert again.seconds == log.seconds
    assert again.estimates == [estimate(2), estimate(3, 0.75)], "the last of each number of images"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"seconds": -1, "estimates": []}', b'{"seconds": 1e99}',
     b'{"estimates": [{"images": 1, "folds": 1, "seconds": 1, "miou": 7, "iou": {}}]}'],
)  # fmt: skip
def test_a_file_that_is_no_progress_counts_as_no_work(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PROGRESS).write_bytes(content)
    log = ProgressLog(tmp_path)
    assert (log.seconds, log.estimates) == (0.0, [])


@pytest.mark.parametrize("count", [2, 3, FOLDS, FOLDS + 1, 50])
def test_every_image_is_left_out_once_alone_while_they_are_few(count: int) -> None:
    folds = folds_of_rows(count)
    assert sorted(np.concatenate(folds)) == list(range(count))
    sizes = [len(fold) for fold in folds]
    assert len(sizes) == min(count, FOLDS) and max(sizes) - min(sizes) <= 1


@pytest.fixture
def labels(project: Path) -> LabelledSet:
    """Four images: in three, the upper half is ground and the lower figure; one is the reverse."""
    opened = Project(project)
    opened.set_classes(CARDS)
    height, width = opened.size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    images = image_set_from_folder(project)
    masks = np.stack([mask, mask, mask, 1 - mask])
    return LabelledSet(images.crop, tuple(images.stems), images.ws, Classes(CARDS, 255), masks, 255)


def test_an_image_is_judged_by_an_ensemble_that_has_not_seen_it(
    labels: LabelledSet, tiny_weights: tuple[Path, Path]
) -> None:
    """An ensemble that had seen the reversed image would know it: it is told apart by its w."""
    generator, card = generator_from_file(tiny_weights[0])
    done: list[int] = []
    scores = held_out_scores(
        generator, card, sha256_of_file(tiny_weights[0]), labels,
        lambda fold, folds: done.append(fold), lambda: None, QUICK,
    )  # fmt: skip
    assert done == [0, 1, 2, 3]
    # Three of four images are labeled like those that their ensemble has seen, one is all wrong: at
    # most 3/4 of the pixels agree, which is an IoU of 3/5.
    assert 0.3 < scores.miou < 0.65, scores.iou


def test_an_estimate_is_given_up_for_new_work_at_the_next_step(
    labels: LabelledSet, tiny_weights: tuple[Path, Path]
) -> None:
    generator, card = generator_from_file(tiny_weights[0])
    steps: list[int] = []

    def go_on() -> None:
        steps.append(1)
        if len(steps) == 3:
            raise NewWork

    with pytest.raises(NewWork):
        held_out_scores(
            generator, card, "0" * 64, labels, lambda fold, folds: None, go_on
        )  # fmt: skip
    assert len(steps) == 3


def test_images_without_a_labeled_pixel_are_no_part_of_an_estimate(labels: LabelledSet) -> None:
    assert labels.masks is not None
    labels.masks[1] = labels.ignore_id
    chosen = with_masks(labels)
    assert chosen is not None and chosen.stems == ("000", "002", "003")
    labels.masks[2:] = labels.ignore_id
    assert with_masks(labels) is None, "one image alone cannot be left out"


def test_progress_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path)
    log.add(estimate(2))
    content = json.loads((tmp_path / PROGRESS).read_text())
    assert content["estimates"][0]["iou"] == {"a": 0.5, "b": None}
