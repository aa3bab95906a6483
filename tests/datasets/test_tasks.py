"""Tasks for CVAT and Label Studio: masks come back pixel for pixel, keypoints in their places."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from labelmint import LabelmintError
from labelmint.datasets.request import checked_request
from labelmint.datasets.writer import check_model
from labelmint.model import LabelClass, model_from_proto
from tests.client.scripted_service import MODEL
from tests.datasets.folders import made
from tests.datasets.test_formats import filled, streamed
from tests.service.harness import RunningServer
from training.labels.brush import mask_from_brush
from training.labels.cvat import source_from_cvat_xml
from training.labels.scaling import LabelSizes

NAMES = ("left", "right", "top")
OPTIONS = ("--seed", "5", "--count", "12", "--min-confidence", "0.5")
CLASSES = {"part 1": 1, "part 2": 2, "part 3": 3}


def confident(points: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    rows = zip(NAMES, points.tolist(), strict=True)
    return {name: [x, y] for name, (x, y, seen) in rows if seen >= 0.5}


def assert_close(found: dict[str, Any], points: npt.NDArray[np.float32]) -> None:
    wanted = confident(points)
    assert found.keys() == wanted.keys()
    assert all(np.allclose(found[name][:2], wanted[name], atol=1e-3) for name in wanted)


def test_cvat_has_the_masks_and_the_keypoints(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--format", "cvat", *OPTIONS)
    batch = streamed(server, 12)
    found = list(source_from_cvat_xml(out / "annotations.xml").images())
    assert [each.name for each in found] == [f"{n:012d}.png" for n in range(12)]
    for n, each in enumerate(found):
        assert (out / "images" / each.name).exists()
        mask = np.zeros((16, 16), np.uint8)
        for part in each.parts:
            inside = part.draw(LabelSizes(16, 16, None))
            assert not mask[inside].any()
            mask[inside] = CLASSES[part.label]
        assert np.array_equal(mask, filled(batch.masks)[n])
        assert_close(dict(each.points or {}), filled(batch.keypoints)[n])
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert [label.text for label in root.findall("meta/task/labels/label/name")] == [
        *CLASSES, *NAMES,
    ]  # fmt: skip
    assert {mask.get("source") for mask in root.iter("mask")} == {"auto"}


def test_label_studio_has_predictions_of_its_own_labels(
    server: RunningServer, tmp_path: Path
) -> None:
    out = made(server, tmp_path / "d", "--format", "label-studio", *OPTIONS)
    batch, tasks = streamed(server, 12), json.loads((out / "tasks.json").read_text())
    assert len(tasks) == 12
    for n, task in enumerate(tasks):
        assert (out / task["data"]["image"].split("?d=")[1]).exists()
        assert np.float32(task["data"]["uncertainty"]) == filled(batch.uncertainty)[n]
        mask, points = np.zeros((16, 16), np.uint8), {}
        (prediction,) = task["predictions"]
        for result in prediction["result"]:
            value = result["value"]
            assert (result["original_width"], result["original_height"]) == (16, 16)
            if result["type"] == "brushlabels":
                inside = mask_from_brush("task", value["rle"], (16, 16))
                assert not mask[inside].any()
                mask[inside] = CLASSES[value["brushlabels"][0]]
            else:
                points[value["keypointlabels"][0]] = [value["x"] * 0.16, value["y"] * 0.16]
        assert np.array_equal(mask, filled(batch.masks)[n])
        assert_close(points, filled(batch.keypoints)[n])
    view = ElementTree.parse(out / "config.xml").getroot()
    for kind, names in (("BrushLabels", list(CLASSES)), ("KeyPointLabels", list(NAMES))):
        assert [label.get("value") for label in view.findall(f"{kind}/Label")] == names


@pytest.mark.parametrize("form", ["cvat", "label-studio"])
@pytest.mark.parametrize("name", ["a\0b", "esc\x1b", "\ufffe", "\ud800"])
def test_a_name_that_xml_cannot_hold_is_refused(form: str, name: str) -> None:
    """XML with it would be written without an error, and be refused by every reader."""
    request = checked_request(format=form, count=1)
    model = model_from_proto(MODEL)
    check_model(request, replace(model, keypoints=("ohr <&> \U0001f600\t",)))
    for broken in (
        replace(model, classes=(LabelClass(1, name, (0, 0, 0)),)),
        replace(model, keypoints=(name,)),
    ):
        with pytest.raises(LabelmintError, match="a character that XML has not"):
            check_model(request, broken)


def test_no_sample_makes_a_file_that_still_can_be_read(
    server: RunningServer, tmp_path: Path
) -> None:
    for form in ("cvat", "label-studio"):
        options = ("--format", form, "--end-index", "3", "--max-uncertainty", "0")
        made(server, tmp_path / form, *options)
    assert json.loads((tmp_path / "label-studio" / "tasks.json").read_text()) == []
    assert not list(ElementTree.parse(tmp_path / "cvat" / "annotations.xml").iter("image"))
