"""COCO annotations of models and samples that are not the usual ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from labelmint.datasets.annotations import (
    annotations_from_keypoints,
    annotations_from_mask,
    categories_from_model,
)
from labelmint.datasets.coco import CocoWriter
from labelmint.datasets.folder import DownloadState, Folder
from labelmint.datasets.request import checked_request
from labelmint.datasets.samples import Sample
from labelmint.model import model_from_proto
from tests.client.scripted_service import MODEL

SCRIPTED = model_from_proto(MODEL)
SEEN = np.array([True, True, False])


def test_classes_without_a_name_and_background_are_left_out() -> None:
    mask = np.array([[0, 1, 77], [0, 2, 2]], np.uint8)
    found = annotations_from_mask(mask, SCRIPTED)
    assert [(a["category_id"], a["area"], a["bbox"]) for a in found] == [
        (1, 1, [1, 0, 1, 1]), (2, 2, [1, 1, 2, 1]),
    ]  # fmt: skip
    assert annotations_from_mask(np.zeros((2, 3), np.uint8), SCRIPTED) == []


def test_keypoints_without_a_mask_have_the_box_of_the_seen_ones() -> None:
    points = np.array([[1.5, 2.5, 1], [4.5, 8.5, 1], [90, 90, 0]], np.float32)
    (found,) = annotations_from_keypoints(points, SEEN, (2.0, 1.0), None, SCRIPTED)
    assert found["keypoints"] == [2.5, 2, 2, 8.5, 8, 2, 0, 0, 0]
    assert (found["bbox"], found["area"]) == ([3, 2.5, 6, 6], 36)
    assert "segmentation" not in found


def test_keypoints_that_are_not_finite_or_not_seen_are_not_labelled() -> None:
    points = np.array([[np.nan, 2.5, 1], [4.5, np.inf, 1], [1, 1, 1]], np.float32)
    assert annotations_from_keypoints(points, SEEN, (1.0, 1.0), None, SCRIPTED) == []


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_keypoints_have_the_region_of_everything_but_background() -> None:
    points = np.full((3, 3), 1.5, np.float32)
    mask = np.array([[0, 1, 77], [0, 2, 0]], np.uint8)
    (found,) = annotations_from_keypoints(points, SEEN, (1.0, 1.0), mask, SCRIPTED)
    region = found["segmentation"]
    decoded = rle.decode({"size": region["size"], "counts": region["counts"].encode()})
    assert np.array_equal(decoded, mask > 0)


def test_categories_follow_the_heads() -> None:
    assert [c["id"] for c in categories_from_model(SCRIPTED)] == [1, 2, 3]
    points_alone = dataclasses.replace(SCRIPTED, classes=())
    assert [(c["id"], c["name"]) for c in categories_from_model(points_alone)] == [(1, "object")]
    assert categories_from_model(SCRIPTED)[-1]["skeleton"] == [[1, 2]]


@pytest.mark.parametrize(("module", "extra"), [("pycocotools", "datasets"), ("tqdm", "cli")])
def test_a_missing_extra_is_a_line_with_the_pip_command(module: str, extra: str) -> None:
    probe = f"""
import sys
sys.modules[{module!r}] = None
from labelmint.cli import main
sys.exit(main(["download", "--target", "localhost:1", "--out", "x", "--format", "coco",
               "--count", "1"]))
"""
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert f"pip install '.[{extra}]'" in ran.stderr


def test_labels_coarser_than_the_image_are_brought_to_its_pixels(tmp_path: Path) -> None:
    model = dataclasses.replace(SCRIPTED, image_size=(4, 4), label_size=(2, 2))
    request = checked_request(format="coco", count=1)
    sample = Sample(
        index=3,
        image=np.zeros((4, 4, 3), np.uint8),
        mask=np.array([[0, 1], [0, 0]], np.uint8),
        keypoints=np.array([[1.5, 0.5, 1], [0, 0, 0], [0, 0, 0]], np.float32),
        depth=None,
        uncertainty=None,
    )
    with Folder(tmp_path, request) as folder:
        state = DownloadState("scripted", "sha256:scripted", None, 0)
        with closing(CocoWriter(folder, request, model, state)) as writer:
            part, whole = writer.encoded(sample).annotations
    assert (part["area"], part["bbox"]) == (4, [2, 0, 2, 2])
    assert whole["keypoints"][:3] == [2.5, 0.5, 2]  # the center of those four pixels
