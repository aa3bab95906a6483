"""Pictures that are not square: masks and keypoints keep rows and columns apart in every format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from engines.fake import fake_bundle
from tests.datasets.folders import made
from tests.datasets.test_formats import filled, streamed
from tests.service.harness import FakeModel, RunningServer, served
from training.labels.annotations import Annotations, ReadingRules
from training.labels.brush import mask_from_brush
from training.labels.cvat import source_from_cvat_xml
from training.labels.scaling import LabelSizes
from training.labels.yolo import source_from_yolo

COUNT = 4


@pytest.fixture(scope="module")
def tall() -> Iterator[RunningServer]:
    with served([FakeModel(bundle=fake_bundle(resolution=16, start=(4, 2)))]) as running:
        yield running


Found = tuple[Any, Any]  # mask, and places of keypoints as fractions, or None


def drawn(labels: Annotations) -> Any:
    mask = np.zeros((16, 8), np.uint8)
    for part in labels.parts:
        mask[part.draw(LabelSizes(16, 8, None))] = int(part.label.removeprefix("part "))
    return mask


def from_yolo(out: Path) -> list[Found]:
    return [(drawn(each), None) for each in source_from_yolo(out, ReadingRules()).images()]


def from_pose(out: Path) -> list[Found]:
    """Keypoints outside of the picture are not labeled; without any the text is empty."""
    texts = sorted((out / "labels" / "train").iterdir())
    values = [text.read_text().split()[5:] or ["0"] * 9 for text in texts]
    rows = [np.array(each, float).reshape(3, 3) for each in values]
    assert any((row[:, 2] == 2).any() for row in rows)
    return [(None, np.where(row[:, 2:] == 2, row[:, :2], np.nan)) for row in rows]


def from_cvat(out: Path) -> list[Found]:
    return [
        (drawn(each), [np.array(each.points[name][:2]) / (8, 16) for name in sorted(each.points)])
        for each in source_from_cvat_xml(out / "annotations.xml").images()
        if each.points
    ]


def from_label_studio(out: Path) -> list[Found]:
    found = []
    for task in json.loads((out / "tasks.json").read_text()):
        mask, places = np.zeros((16, 8), np.uint8), []
        for result in task["predictions"][0]["result"]:
            value = result["value"]
            if result["type"] == "brushlabels":
                inside = mask_from_brush("task", value["rle"], (16, 8))
                mask[inside] = int(value["brushlabels"][0].removeprefix("part "))
            else:
                places.append(np.array([value["x"], value["y"]]) / 100)
        found.append((mask, places))
    return found


def from_parquet(out: Path) -> list[Found]:
    (file,) = (out / "data").iterdir()
    return [
        (np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))),
         np.array(row["keypoints"])[:, :2] / (8, 16))
        for row in parquet.read_table(file).to_pylist()
    ]  # fmt: skip


def from_fiftyone(out: Path) -> list[Found]:
    return [
        (np.asarray(Image.open(out / sample["mask"]["mask_path"])),
         np.array(sample["keypoints"]["keypoints"][0]["points"]))
        for sample in json.loads((out / "samples.json").read_text())["samples"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("yolo-seg", from_yolo), ("yolo-pose", from_pose), ("cvat", from_cvat),
        ("label-studio", from_label_studio), ("hf", from_parquet), ("fiftyone", from_fiftyone),
    ],
)  # fmt: skip
def test_rows_and_columns_stay_apart(
    tall: RunningServer, tmp_path: Path, form: str, read: Callable[[Path], list[Found]]
) -> None:
    options = () if form in ("hf", "yolo-seg") else ("--min-confidence", "0")
    out = made(tall, tmp_path / "d", "--format", form, "--seed", "5", "--count", "4", *options)
    batch, found = streamed(tall, COUNT), read(out)
    assert filled(batch.images).shape == (COUNT, 16, 8, 3) and len(found) == COUNT
    for n, (mask, places) in enumerate(found):
        if mask is not None:
            assert np.array_equal(mask, filled(batch.masks)[n])
        if places is not None:
            wanted = filled(batch.keypoints)[n, :, :2] / (8, 16)
            labeled = np.isfinite(places)
            assert np.allclose(np.array(places)[labeled], wanted[labeled], atol=1e-4)
