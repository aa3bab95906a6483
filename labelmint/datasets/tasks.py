"""Writers of annotation tasks whose labels a person corrects: for CVAT and for Label Studio.

Enter: samples. Leave: images/, and all tasks in one file: annotations.xml, "CVAT for images 1.1",
or tasks.json with predictions and config.xml, the labeling interface that their names belong to.
Masks are exact, at the size of the image. metadata.jsonl is there for `datasets.load_dataset`.
Until the end, tasks are lines of a file in the scratch folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from labelmint.datasets.append_file import AppendFile, join_lines
from labelmint.datasets.folder import DownloadState, Folder, replace_file
from labelmint.datasets.png import METADATA, metadata_line
from labelmint.datasets.request import Request
from labelmint.datasets.run_lengths import brush_from_mask, cvat_mask
from labelmint.datasets.samples import Sample, encoded_image, image_suffix, resized_mask
from labelmint.datasets.viewpoint import viewpoint_from_sample
from labelmint.model import LabelClass, Model

_TASKS = "tasks.lines"  # in the scratch folder
_LOCAL = "/data/local-files/?d="  # where Label Studio looks for files of its own disk
_BACKGROUND = 0


@dataclass(frozen=True)
class EncodedTask:
    """A sample ready to be written."""

    image: str  # name in images/
    content: bytes
    task: bytes  # one line of XML or JSON
    metadata: bytes  # line of metadata.jsonl


class TaskWriter:
    """Writes tasks. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        self._folder, self._request, self._model = folder, request, model
        (folder.path / "images").mkdir(exist_ok=True)
        self._lines = {
            name: AppendFile(place / name, state.mark.get(name, 0))
            for name, place in ((_TASKS, folder.scratch), (METADATA, folder.path))
        }

    def encoded(self, sample: Sample) -> EncodedTask:
        """The image file and the task of a sample."""
        name = f"{sample.key}.{image_suffix(self._request)}"
        size = (sample.image.shape[0], sample.image.shape[1])
        regions = []
        if sample.mask is not None:
            mask = resized_mask(sample.mask, size)
            regions = [(o, mask == o.id) for o in _objects(self._model) if (mask == o.id).any()]
        points = _points(sample, self._request, self._model)
        if self._request.format == "cvat":
            task = tostring(_image(sample, name, size, regions, points))
        else:
            task = json.dumps(_task(sample, name, size, regions, points, self._model)).encode()
        viewpoint = viewpoint_from_sample(sample, self._request)
        metadata = metadata_line(sample, viewpoint, {"image": f"images/{name}"})
        content = encoded_image(sample.image, self._request)
        return EncodedTask(name, content, task + b"\n", metadata)

    def add(self, encoded: EncodedTask) -> None:
        """Writes the next sample; raises OSError."""
        (self._folder.path / "images" / encoded.image).write_bytes(encoded.content)
        self._lines[_TASKS].append(encoded.task)
        self._lines[METADATA].append(encoded.metadata)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {name: file.length for name, file in self._lines.items()}

    def finish(self) -> None:
        """Writes the file of all tasks."""
        lines = self._folder.scratch / _TASKS
        if self._request.format == "cvat":
            head = (
                b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
            )
            head += tostring(_meta(self._model)) + b"\n"
            join_lines(lines, self._folder.path / "annotations.xml", head, b"", b"</annotations>\n")
        else:
            join_lines(lines, self._folder.path / "tasks.json", b"[\n", b",", b"]\n")
            replace_file(self._folder.path / "config.xml", _config(self._model))

    def close(self) -> None:
        """Closes the files."""
        for file in self._lines.values():
            file.close()


Region = tuple[LabelClass, Any]  # class, and bool [H, W]
Place = tuple[str, float, float]  # name of a keypoint, and x, y in image pixels


def _objects(model: Model) -> list[LabelClass]:
    return [label for label in model.classes if label.id != _BACKGROUND]


def _points(sample: Sample, request: Request, model: Model) -> list[Place]:
    """The keypoints that are confident enough; both tools draw no others."""
    if sample.keypoints is None:
        return []
    assert request.min_confidence is not None, "checked_request fills it in"
    size = np.array(sample.image.shape[1::-1], np.float64)
    grid = np.array(model.label_size[::-1], np.float64) if all(model.label_size) else size
    places = sample.keypoints[:, :2].astype(np.float64) * (size / grid)
    seen = np.isfinite(places).all(1) & (sample.keypoints[:, 2] >= request.min_confidence)
    return [
        (name, x, y)
        for name, (x, y), visible in zip(model.keypoints, places.tolist(), seen, strict=True)
        if visible
    ]


def _image(
    sample: Sample, name: str, size: tuple[int, int], regions: list[Region], points: list[Place]
) -> Element:
    """CVAT's element `image`; its id is the raw index."""
    height, width = map(str, size)
    fields = {"id": str(sample.index), "name": name, "width": width, "height": height}
    image = Element("image", fields)
    shared = {"source": "auto", "occluded": "0", "z_order": "0"}
    for label, region in regions:
        SubElement(image, "mask", {"label": label.name, **shared, **cvat_mask(region)})
    for name, x, y in points:
        place = {"points": f"{x:.4f},{y:.4f}"}
        SubElement(image, "points", {"label": name, **shared, **place})
    return image


def _meta(model: Model) -> Element:
    """CVAT's labels."""
    listed = [(label.name, _hexadecimal(label), "mask") for label in _objects(model)]
    listed += [(name, "#ffffff", "points") for name in model.keypoints]
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for texts in listed:
        label = SubElement(labels, "label")
        for field, text in zip(("name", "color", "type"), texts, strict=True):
            SubElement(label, field).text = text
    return meta


def _task(
    sample: Sample, name: str, size: tuple[int, int], regions: list[Region],
    points: list[Place], model: Model,
) -> dict[str, Any]:  # fmt: skip
    """A task of Label Studio, with a prediction: an annotator starts from it."""
    height, width = size
    shared = {"to_name": "image", "image_rotation": 0, "original_width": width,
              "original_height": height}  # fmt: skip
    results: list[dict[str, Any]] = []
    for label, region in regions:
        value: dict[str, Any] = {
            "format": "rle", "rle": brush_from_mask(region), "brushlabels": [label.name],
        }  # fmt: skip
        results.append({"from_name": "tag", "type": "brushlabels", "value": value})
    for point, x, y in points:
        value = {"x": 100 * x / width, "y": 100 * y / height, "width": 0.5}
        value["keypointlabels"] = [point]
        results.append({"from_name": "points", "type": "keypointlabels", "value": value})
    numbered = [{"id": f"{sample.key}-{n}", **shared, **result} for n, result in enumerate(results)]
    data: dict[str, Any] = {"image": f"{_LOCAL}images/{name}", "key": sample.key}
    if sample.uncertainty is not None:
        data["uncertainty"] = sample.uncertainty
    return {"data": data, "predictions": [{"model_version": model.bundle_id, "result": numbered}]}


def _config(model: Model) -> str:
    view = Element("View")
    SubElement(view, "Image", {"name": "image", "value": "$image"})
    if _objects(model):
        tags = SubElement(view, "BrushLabels", {"name": "tag", "toName": "image"})
        for label in _objects(model):
            SubElement(tags, "Label", {"value": label.name, "background": _hexadecimal(label)})
    if model.keypoints:
        points = SubElement(view, "KeyPointLabels", {"name": "points", "toName": "image"})
        for name in model.keypoints:
            SubElement(points, "Label", {"value": name})
    return tostring(view, encoding="unicode") + "\n"


def _hexadecimal(label: LabelClass) -> str:
    return "#{:02x}{:02x}{:02x}".format(*label.color)
