"""Writer of FiftyOne data sets, as `fiftyone.Dataset.from_dir` reads a `FiftyOneDataset`.

Enter: samples. Leave: data/KEY.png (or .jpg), fields/mask/KEY.png (class ids, gray),
fields/depth/KEY.png (16 bits), samples.json with one document per sample, and metadata.json with
the data set's document: fields, mask targets, skeleton. Coordinates are fractions of the picture,
where the corner of the first pixel is 0. metadata.jsonl is there for `datasets.load_dataset`.
Until the end, documents are lines of a file in the scratch folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from labelmint.codec import Array
from labelmint.datasets.append_file import AppendFile, join_lines
from labelmint.datasets.folder import DownloadState, Folder, replace_file
from labelmint.datasets.png import METADATA, metadata_line
from labelmint.datasets.request import Request
from labelmint.datasets.samples import (
    Sample,
    encoded_image,
    image_suffix,
    outputs_from_model,
    png_from_gray,
)
from labelmint.datasets.viewpoint import viewpoint_from_sample
from labelmint.model import Model

IMAGES, MASKS, DEPTH = "data", "fields/mask", "fields/depth"
SAMPLES, DOCUMENT = "samples.json", "metadata.json"
_DOCUMENTS = "documents.lines"  # in the scratch folder
_VERSION = "1.0.0"  # of FiftyOne: the oldest that reads this; later ones migrate it
_NAN = {"$numberDouble": "NaN"}  # as BSON's extended JSON writes it
_MAX_INTEGER = 2**63 - 1  # of the data base
_EMBEDDED = "EmbeddedDocumentField"
_FIELDS = "fiftyone.core.fields."
_LABELS = "fiftyone.core.labels."


@dataclass(frozen=True)
class EncodedDocument:
    """A sample ready to be written."""

    files: dict[PurePosixPath, bytes]
    document: bytes  # one line of JSON
    metadata: bytes  # line of metadata.jsonl


class FiftyOneWriter:
    """Writes FiftyOne data sets. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        self._folder, self._request, self._model = folder, request, model
        outputs = outputs_from_model(model, request)
        pictures = [place for place in (MASKS, DEPTH) if PurePosixPath(place).name in outputs]
        for place in (IMAGES, *pictures):
            (folder.path / place).mkdir(parents=True, exist_ok=True)
        self._lines = {
            name: AppendFile(place / name, state.mark.get(name, 0))
            for name, place in ((_DOCUMENTS, folder.scratch), (METADATA, folder.path))
        }

    def encoded(self, sample: Sample) -> EncodedDocument:
        """The pictures and the document of a sample."""
        image = PurePosixPath(IMAGES, f"{sample.key}.{image_suffix(self._request)}")
        files = {image: encoded_image(sample.image, self._request)}
        viewpoint = viewpoint_from_sample(sample, self._request)
        document: dict[str, Any] = {
            "_id": self._identity(sample, ""),
            "_media_type": "image",
            # FiftyOne shuffles and takes subsets by this number: drawn from the identity.
            "_rand": int(self._identity(sample, "")["$oid"][:8], 16) / 2**32,
            "filepath": str(image),
            "tags": [],
            "key": sample.key,
            **viewpoint,
        }
        if sample.index <= _MAX_INTEGER:
            document["index"] = sample.index
        if sample.uncertainty is not None:
            document["uncertainty"] = sample.uncertainty
        if sample.mask is not None:
            path = PurePosixPath(MASKS, f"{sample.key}.png")
            files[path] = png_from_gray(sample.mask)
            document["mask"] = self._label(sample, "Segmentation", mask_path=str(path))
        if sample.depth is not None:
            path = PurePosixPath(DEPTH, f"{sample.key}.png")
            gray, low, high = gray_from_depth(sample.depth)
            files[path] = png_from_gray(gray)
            levels = [0, int(np.iinfo(gray.dtype).max)]
            document["depth"] = self._label(sample, "Heatmap", map_path=str(path), range=levels)
            document["depth_low"], document["depth_high"] = low, high
        if sample.keypoints is not None:
            points = self._label(sample, "Keypoint", label="object", **self._points(sample))
            document["keypoints"] = {"_cls": "Keypoints", "keypoints": [points]}
        line = json.dumps(document, allow_nan=False).encode() + b"\n"
        paths = {"image": str(image)}
        if sample.mask is not None:
            paths["mask"] = document["mask"]["mask_path"]
        metadata = metadata_line(sample, viewpoint, paths)
        return EncodedDocument(files, line, metadata)

    def add(self, encoded: EncodedDocument) -> None:
        """Writes the next sample; raises OSError."""
        for path, content in encoded.files.items():
            (self._folder.path / path).write_bytes(content)
        self._lines[_DOCUMENTS].append(encoded.document)
        self._lines[METADATA].append(encoded.metadata)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {name: file.length for name, file in self._lines.items()}

    def finish(self) -> None:
        """Writes samples.json and metadata.json."""
        lines = self._folder.scratch / _DOCUMENTS
        join_lines(lines, self._folder.path / SAMPLES, b'{"samples": [\n', b",", b"]}\n")
        document = document_from_model(self._model, self._request)
        replace_file(self._folder.path / DOCUMENT, json.dumps(document, indent=1) + "\n")

    def close(self) -> None:
        """Closes the files."""
        for file in self._lines.values():
            file.close()

    def _identity(self, sample: Sample, field: str) -> dict[str, str]:
        """An ObjectId of the data base, the same in every download of this sample."""
        asked = f"{self._model.bundle_id} {self._request.seed} {sample.key} {field}"
        return {"$oid": hashlib.sha256(asked.encode()).hexdigest()[:24]}

    def _label(self, sample: Sample, kind: str, **values: Any) -> dict[str, Any]:
        return {"_id": self._identity(sample, kind), "_cls": kind, "tags": [], **values}

    def _points(self, sample: Sample) -> dict[str, Any]:
        """Places of all keypoints, NaN for those that are not confident, and confidences."""
        assert sample.keypoints is not None and self._request.min_confidence is not None
        grid = self._model.label_size
        extent = np.array(grid if all(grid) else sample.image.shape[:2], np.float64)[::-1]
        places = sample.keypoints[:, :2].astype(np.float64) / extent
        confidence = sample.keypoints[:, 2]
        seen = np.isfinite(places).all(1) & (confidence >= self._request.min_confidence)
        return {
            "points": [
                place if visible else [_NAN, _NAN]
                for place, visible in zip(places.tolist(), seen.tolist(), strict=True)
            ],
            "confidence": [
                float(value) if np.isfinite(value) else _NAN for value in confidence.tolist()
            ],
        }


def gray_from_depth(depth: Array) -> tuple[Array, float, float]:
    """Depth, float16 [h, w], as uint16 [h, w], and the depths of its levels 0 and 65,535.

    Depth that is not finite has level 0. A level is a 65,535th of the picture's range.
    """
    finite = np.isfinite(depth)
    seen = depth[finite].astype(np.float64)
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
    levels = np.zeros(depth.shape, np.uint16)
    if low < high:
        levels[finite] = np.rint((seen - low) / (high - low) * 65_535)
    return levels, low, high


def document_from_model(model: Model, request: Request) -> dict[str, Any]:
    """The data set's document."""
    outputs = outputs_from_model(model, request)
    fields = [
        _field("id", "ObjectIdField", column="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", subfield="StringField"),
        _field(
            "metadata", "EmbeddedDocumentField", document="fiftyone.core.metadata.ImageMetadata"
        ),
        _field("_media_type", "StringField"),
        _field("_rand", "FloatField"),
        _field("_dataset_id", "ObjectIdField"),
        _field("created_at", "DateTimeField"),
        _field("last_modified_at", "DateTimeField"),
        _field("key", "StringField"),
        _field("index", "IntField"),
    ]
    if "uncertainty" in outputs:
        fields.append(_field("uncertainty", "FloatField"))
    if "weight" in outputs:
        fields.append(_field("weight", "FloatField"))
    if "mask" in outputs:
        fields.append(_label_field("mask", "Segmentation"))
    if "depth" in outputs:
        fields += [
            _label_field("depth", "Heatmap"),
            _field("depth_low", "FloatField"),
            _field("depth_high", "FloatField"),
        ]
    if "keypoints" in outputs:
        fields.append(_label_field("keypoints", "Keypoints"))
    if request.views_per_object > 1:
        fields.append(_field("object", "IntField"))
    if request.views_per_object > 1 or "view" in outputs:
        fields.append(_field("view", "IntField"))
    if "camera" in outputs:
        fields.append(_field("camera", "DictField"))
    document: dict[str, Any] = {
        "name": model.name,
        "version": _VERSION,
        "media_type": "image",
        "sample_fields": fields,
        "info": {"bundle_id": model.bundle_id, "seed": request.seed},
        "default_mask_targets": {str(label.id): label.name for label in model.classes},
        "skeletons": {},
        "app_config": {
            "color_scheme": {
                "id": hashlib.sha256(model.bundle_id.encode()).hexdigest()[:24],
                "default_mask_targets_colors": [
                    {"intTarget": label.id, "color": "#{:02x}{:02x}{:02x}".format(*label.color)}
                    for label in model.classes
                    if label.id
                ],
            }
        },
    }
    if "keypoints" in outputs:
        bones = [list(bone) for bone in model.skeleton]
        document["skeletons"]["keypoints"] = {"labels": list(model.keypoints), "edges": bones}
    return document


def _field(
    name: str,
    kind: str,
    column: str | None = None,
    subfield: str | None = None,
    document: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": _FIELDS + kind,
        "embedded_doc_type": document,
        "subfield": _FIELDS + subfield if subfield else None,
        "db_field": column or name,
    }


def _label_field(name: str, kind: str) -> dict[str, Any]:
    return _field(name, _EMBEDDED, document=_LABELS + kind)
