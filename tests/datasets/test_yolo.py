"""YOLO: polygons give the masks back pixel for pixel, and keypoints their places."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from labelmint import LabelmintError
from labelmint.datasets.request import checked_request
from labelmint.datasets.writer import check_model
from labelmint.datasets.yolo import data_from_model, text_from_keypoints, text_from_mask
from labelmint.model import LabelClass, model_from_proto
from tests.client.scripted_service import MODEL
from tests.datasets.folders import made
from tests.datasets.test_formats import filled, streamed
from tests.service.harness import RunningServer
from training.labels.annotations import ReadingRules
from training.labels.scaling import LabelSizes
from training.labels.yolo import source_from_yolo


def test_polygons_give_the_masks_back(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "yolo-seg", "--seed", "5", "--count", "12")
    out, batch = made(server, tmp_path / "d", *options), streamed(server, 12)
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert data["names"] == {0: "part 1", 1: "part 2", 2: "part 3"}
    source = source_from_yolo(out, ReadingRules())
    sizes = LabelSizes(16, 16, None)
    found = list(source.images())
    assert [Path(each.name).stem for each in found] == [f"{n:012d}" for n in range(12)]
    for n, labels in enumerate(found):
        with Image.open(out / data["train"] / f"{n:012d}.png") as picture:
            assert np.array_equal(np.asarray(picture), filled(batch.images)[n])
        mask = np.zeros((16, 16), np.uint8)
        for part in labels.parts:
            inside = part.draw(sizes)
            assert not mask[inside].any()
            mask[inside] = int(part.label.removeprefix("part "))
        assert np.array_equal(mask, filled(batch.masks)[n])


def test_keypoints_keep_their_places(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "yolo-pose", "--seed", "5", "--count", "12", "--min-confidence", "0.5")
    out, batch = made(server, tmp_path / "d", *options), streamed(server, 12)
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert data["kpt_shape"] == [3, 3] and data["kpt_names"] == {0: ["left", "right", "top"]}
    assert data["names"] == {0: "object"}
    lines = 0
    for n, points in enumerate(filled(batch.keypoints)):
        text = (out / "labels" / "train" / f"{n:012d}.txt").read_text()
        seen = (points[:, 2] >= 0.5) & (points[:, :2] >= 0).all(1) & (points[:, :2] <= 16).all(1)
        assert bool(text) == bool(seen.any())
        if not text:
            continue
        lines += 1
        number, *values = map(float, text.split())
        found = np.array(values[4:]).reshape(3, 3)
        assert number == 0 and found[:, 2].tolist() == [2 if each else 0 for each in seen]
        assert np.allclose(found[seen, :2] * 16, points[seen, :2], atol=1e-5)
        rows, columns = np.nonzero(filled(batch.masks)[n])
        x, y, width, height = np.array(values[:4]) * 16
        assert np.allclose(
            [x - width / 2, x + width / 2, y - height / 2, y + height / 2],
            [columns.min(), columns.max() + 1, rows.min(), rows.max() + 1],
            atol=1e-5,
        )
    assert lines > 3


def test_a_class_in_parts_with_a_hole_has_a_line_for_each_part() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[1:6, 1:6] = 2
    mask[3, 3] = 0
    mask[7, 7] = 2
    lines = text_from_mask(mask, [LabelClass(2, "ear", (0, 0, 0))]).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "0"]
    assert all(0 <= float(value) <= 1 for line in lines for value in line.split()[1:])


def test_keypoints_outside_are_not_labeled_and_a_box_has_a_pixel_at_least() -> None:
    points = np.array([[4, 2, 1], [9, 1, 1], [np.nan, 1, 1], [1, 1, 0.1]], np.float32)
    values = list(map(float, text_from_keypoints(points, 0.2, None, (8, 8)).split()))
    assert values == [0, 0.5, 0.25, 0.125, 0.125, 0.5, 0.25, 2] + [0] * 9
    assert text_from_keypoints(points[1:], 0.2, None, (8, 8)) == ""


def test_no_name_breaks_data_yaml_and_a_model_without_the_labels_is_refused() -> None:
    names = ['a: "b"', "# no", "ohne 'Ü'", "\U0001f600", "null"]
    classes = tuple(LabelClass(n, name, (0, 0, 0)) for n, name in enumerate(["bg", *names]))
    model = dataclasses.replace(
        model_from_proto(MODEL), classes=classes, keypoints=tuple(names), outputs=("image",)
    )
    for form, lacks in (("yolo-seg", "mask"), ("yolo-pose", "keypoints")):
        request = checked_request(format=form, count=1)
        data = yaml.safe_load(data_from_model(model, request))
        found = data["names"] if form == "yolo-seg" else dict(enumerate(data["kpt_names"][0]))
        assert found == dict(enumerate(names))
        with pytest.raises(LabelmintError, match=f"has no {lacks} output"):
            check_model(request, model)
