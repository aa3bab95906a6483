"""COCO: images/ and annotations.json, for pycocotools and what builds on it.

Image ids are raw indices. Every class but 0, the background, is a category under its own id, with
one annotation in every image that shows it: an RLE mask, its area and its box. Keypoints are one
more annotation an image, of a category of their own, as COCO has persons; its box and area are
those of everything but background, or else of the points.

COCO counts keypoints in pixels from the centre of the first one, ours have centres at +0.5: so
x and y are 0.5 less here. A point under `VISIBLE` confidence is 0, 0, 0, "not labelled"; the
others have visibility 2. Where labels are coarser than the image, masks are enlarged to it by
nearest neighbour, and points scaled. Annotations wait as lines on the disk, not in memory.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as rle

from labelmint.codec import Array
from labelmint.datasets.folder import Folder, State
from labelmint.datasets.growing import GrowingFile
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, encoded_image, image_suffix
from labelmint.model import Model

BACKGROUND = 0
VISIBLE = 0.05  # confidence; as `preview` draws them
ANNOTATIONS = "annotations.json"
_IMAGES, _LABELS = "images.jsonl", "annotations.jsonl"  # while it is made


@dataclass(frozen=True)
class Labelled:
    """A sample as COCO has it; annotations have no id yet."""

    file: str
    content: bytes
    image: dict[str, Any]
    annotations: list[dict[str, Any]]


class CocoWriter:
    """Writes a COCO data set; `encoded` may run in other threads, the rest in one."""

    def __init__(self, folder: Folder, request: Request, model: Model, state: State) -> None:
        """Goes on after a state."""
        self._folder, self._request, self._model = folder, request, model
        (folder.path / "images").mkdir(exist_ok=True)
        self._annotations = state.mark.get("annotations", 0)
        self._lines = {
            name: GrowingFile(folder.scratch / name, state.mark.get(name, 0))
            for name in (_IMAGES, _LABELS)
        }

    def encoded(self, sample: Sample) -> Labelled:
        """A sample's image file and annotations."""
        name = f"{sample.key}.{image_suffix(self._request)}"
        height, width = sample.image.shape[:2]
        image: dict[str, Any] = {
            "id": sample.index, "file_name": name, "width": width, "height": height,
        }  # fmt: skip
        if self._model.licences:
            image["license"] = 1
        if sample.uncertainty is not None:
            image["uncertainty"] = sample.uncertainty
        annotations, mask = [], None
        if sample.mask is not None:
            mask = _resized(sample.mask, (width, height))
            annotations = annotations_from_mask(mask, self._model)
        if sample.keypoints is not None:
            grid = self._model.label_size
            scale = (width / grid[1], height / grid[0]) if all(grid) else (1.0, 1.0)
            annotations += annotations_from_keypoints(sample.keypoints, scale, mask, self._model)
        content = encoded_image(sample.image, self._request)
        return Labelled(name, content, image, annotations)

    def add(self, encoded: Labelled) -> None:
        """Writes the next sample; raises OSError."""
        (self._folder.path / "images" / encoded.file).write_bytes(encoded.content)
        lines = []
        for annotation in encoded.annotations:
            self._annotations += 1  # from 1 on: pycocotools takes 0 for no match
            whole = {"id": self._annotations, "image_id": encoded.image["id"], **annotation}
            lines.append(json.dumps(whole).encode() + b"\n")
        self._lines[_LABELS].append(b"".join(lines))
        self._lines[_IMAGES].append(json.dumps(encoded.image).encode() + b"\n")

    def mark(self) -> dict[str, int]:
        """Where to go on after the samples so far."""
        lengths = {name: file.length for name, file in self._lines.items()}
        return {"annotations": self._annotations, **lengths}

    def finish(self) -> None:
        """Puts the lines together to annotations.json."""
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
        """Lets go of the files."""
        for file in self._lines.values():
            file.close()


def licences_from_model(model: Model) -> list[dict[str, Any]]:
    """COCO's table of licences: one entry with all tags, since all hold for every image."""
    if not model.licences:
        return []
    return [{"id": 1, "name": ", ".join(model.licences), "url": ""}]


def categories_from_model(model: Model) -> list[dict[str, Any]]:
    """The classes by their ids in masks, and the keypoints' category after them."""
    categories: list[dict[str, Any]] = [
        {"id": label.id, "name": label.name, "supercategory": "part", "color": list(label.color)}
        for label in model.classes
        if label.id != BACKGROUND
    ]
    if model.keypoints:
        bones = [[start + 1, end + 1] for start, end in model.skeleton]  # COCO counts from 1
        categories.append(
            {
                "id": keypoint_category(model),
                "name": "object",
                "supercategory": "object",
                "keypoints": list(model.keypoints),
                "skeleton": bones,
            }
        )
    return categories


def keypoint_category(model: Model) -> int:
    """Id of the category that keypoints belong to."""
    return 1 + max((label.id for label in model.classes), default=BACKGROUND)


def annotations_from_mask(mask: Array, model: Model) -> list[dict[str, Any]]:
    """One annotation for every named class but background in a mask, uint8 [H, W]."""
    present = set(np.unique(mask).tolist()) - {BACKGROUND}
    return [
        {"category_id": label.id, "iscrowd": 0, **_region(mask == label.id)}
        for label in model.classes
        if label.id in present
    ]


def annotations_from_keypoints(
    keypoints: Array,
    scale: tuple[float, float],
    mask: Array | None,
    model: Model,
) -> list[dict[str, Any]]:
    """The annotation of keypoints, float32 [K, 3], if any is visible.

    scale is image pixels per label pixel across and down; mask is uint8 [H, W] of the image.
    """
    points = keypoints.astype(np.float64)
    seen = np.isfinite(points).all(axis=1) & (points[:, 2] >= VISIBLE)
    if not seen.any():
        return []
    places = points[:, :2] * scale
    values: list[float] = []
    for (x, y), visible in zip(places.tolist(), seen.tolist(), strict=True):
        values += [round(x - 0.5, 3), round(y - 0.5, 3), 2] if visible else [0, 0, 0]
    region: dict[str, Any] = {}
    if mask is not None and (mask != BACKGROUND).any():
        region = _region(mask != BACKGROUND)
    else:
        low, high = places[seen].min(axis=0), places[seen].max(axis=0)
        width, height = (high - low).tolist()
        region = {"bbox": [*low.tolist(), width, height], "area": width * height}
    fields = {"category_id": keypoint_category(model), "iscrowd": 0, **region}
    return [{**fields, "keypoints": values, "num_keypoints": int(seen.sum())}]


def _region(inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(inside, np.uint8))
    counts = encoded["counts"]
    return {
        "segmentation": {
            "size": list(inside.shape),
            "counts": counts.decode() if isinstance(counts, bytes) else counts,
        },
        "area": float(rle.area(encoded)),
        "bbox": rle.toBbox(encoded).tolist(),
    }


def _resized(mask: Array, extent: tuple[int, int]) -> Array:
    if (mask.shape[1], mask.shape[0]) == extent:
        return mask
    picture = Image.fromarray(np.ascontiguousarray(mask))
    return np.asarray(picture.resize(extent, Image.Resampling.NEAREST))
