"""Writer of COCO data sets: images/ and annotations.json, as pycocotools reads them.

Enter: samples. Leave: files; image ids are raw indices. metadata.jsonl is there for
`datasets.load_dataset`. Until the end, images and annotations are
lines of two files in the scratch folder, because annotations.json cannot be appended to.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from labelmint.datasets.annotations import (
    annotations_from_keypoints,
    annotations_from_mask,
    categories_from_model,
    licences_from_model,
)
from labelmint.datasets.append_file import AppendFile
from labelmint.datasets.folder import DownloadState, Folder
from labelmint.datasets.png import METADATA, metadata_line
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, encoded_image, image_suffix, resized_mask
from labelmint.datasets.viewpoint import viewpoint_from_sample
from labelmint.model import Model

ANNOTATIONS = "annotations.json"
_IMAGES, _LABELS = "images.jsonl", "annotations.jsonl"  # in the scratch folder


@dataclass(frozen=True)
class EncodedImage:
    """A sample ready to be written; its annotations have no ids yet."""

    file: str  # name in images/
    content: bytes
    image: dict[str, Any]  # element of COCO's "images"
    annotations: list[dict[str, Any]]
    metadata: bytes  # line of metadata.jsonl


class CocoWriter:
    """Writes a COCO data set. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        self._folder, self._request, self._model = folder, request, model
        (folder.path / "images").mkdir(exist_ok=True)
        assert request.min_confidence is not None, "checked_request fills it in"
        self._min_confidence = request.min_confidence
        self._annotations = state.mark.get("annotations", 0)
        self._lines = {
            name: AppendFile(folder.scratch / name, state.mark.get(name, 0))
            for name in (_IMAGES, _LABELS)
        }
        self._lines[METADATA] = AppendFile(folder.path / METADATA, state.mark.get(METADATA, 0))

    def encoded(self, sample: Sample) -> EncodedImage:
        """The image file and the annotations of a sample."""
        name = f"{sample.key}.{image_suffix(self._request)}"
        height, width = sample.image.shape[:2]
        image: dict[str, Any] = {
            "id": sample.index, "file_name": name, "width": width, "height": height,
        }  # fmt: skip
        if self._model.licences:
            image["license"] = 1
        if sample.uncertainty is not None:
            image["uncertainty"] = sample.uncertainty
        viewpoint = viewpoint_from_sample(sample, self._request)
        image |= viewpoint
        annotations, mask = [], None
        if sample.mask is not None:
            mask = resized_mask(sample.mask, (height, width))
            annotations = annotations_from_mask(mask, self._model)
        if sample.keypoints is not None:
            grid = self._model.label_size
            scale = (width / grid[1], height / grid[0]) if all(grid) else (1.0, 1.0)
            seen = sample.keypoints[:, 2] >= self._min_confidence
            annotations += annotations_from_keypoints(
                sample.keypoints, seen, scale, mask, self._model
            )
        content = encoded_image(sample.image, self._request)
        metadata = metadata_line(sample, viewpoint, {"image": f"images/{name}"})
        return EncodedImage(name, content, image, annotations, metadata)

    def add(self, encoded: EncodedImage) -> None:
        """Writes the next sample; raises OSError."""
        (self._folder.path / "images" / encoded.file).write_bytes(encoded.content)
        lines = []
        for annotation in encoded.annotations:
            self._annotations += 1  # from 1: pycocotools takes id 0 as "no match"
            whole = {"id": self._annotations, "image_id": encoded.image["id"], **annotation}
            lines.append(json.dumps(whole).encode() + b"\n")
        self._lines[_LABELS].append(b"".join(lines))
        self._lines[_IMAGES].append(json.dumps(encoded.image).encode() + b"\n")
        self._lines[METADATA].append(encoded.metadata)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        lengths = {name: file.length for name, file in self._lines.items()}
        return {"annotations": self._annotations, **lengths}

    def finish(self) -> None:
        """Writes annotations.json from the lines of both files."""
        head = {
            "info": {"description": f"Made by labelmint from {self._model.bundle_id}"},
            "licenses": licences_from_model(self._model),
            "categories": categories_from_model(self._model),
        }
        path = self._folder.scratch / ANNOTATIONS
        with path.open("wb") as file:
            file.write(json.dumps(head, indent=1).encode().removesuffix(b"\n}"))
            for key, name in (("images", _IMAGES), ("annotations", _LABELS)):
                file.write(f',\n "{key}": ['.encode())
                with (self._folder.scratch / name).open("rb") as lines:
                    for number, line in enumerate(lines):
                        file.write((b",\n  " if number else b"\n  ") + line.rstrip(b"\n"))
                file.write(b"\n ]")
            file.write(b"\n}\n")
        os.replace(path, self._folder.path / ANNOTATIONS)

    def close(self) -> None:
        """Closes the files."""
        for file in self._lines.values():
            file.close()
