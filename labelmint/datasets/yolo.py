"""Writers of YOLO data sets, as Ultralytics reads them: images/train, labels/train and data.yaml.

Enter: samples. Leave: per sample an image and a text with one line per object; coordinates are
fractions of the picture, where the corner of the first pixel is 0. metadata.jsonl is there for
`datasets.load_dataset`.

    3 0.10 0.10 0.50 0.10 0.50 0.40         yolo-seg: class, and the corners of a polygon
    0 0.50 0.50 0.80 0.80 0.30 0.40 2 ...   yolo-pose: class, box, and x, y, visibility of keypoints

Classes are numbered from 0 without the background, which has no lines. A class in several parts has
a line for each, since the format has no object of several parts; a hole is joined to its outline
by a cut of no width, since it has no holes. Rasterized at the size of the labels both are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.codec import Array
from labelmint.datasets.append_file import AppendFile
from labelmint.datasets.card import yaml_text
from labelmint.datasets.folder import DownloadState, Folder, replace_file
from labelmint.datasets.outlines import outlines_from_mask
from labelmint.datasets.png import METADATA, metadata_line
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, encoded_image, image_suffix
from labelmint.datasets.viewpoint import viewpoint_from_sample
from labelmint.model import LabelClass, Model

IMAGES, LABELS, DATA = "images/train", "labels/train", "data.yaml"
_BACKGROUND = 0


@dataclass(frozen=True)
class EncodedLabels:
    """A sample ready to be written."""

    image: str  # name in images/train
    content: bytes
    text: str  # of labels/train
    metadata: bytes  # line of metadata.jsonl


class YoloWriter:
    """Writes either YOLO format. `encoded` may run in several threads, everything else in one."""

    def __init__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> None:
        """Resumes after a state."""
        self._folder, self._request, self._model = folder.path, request, model
        for name in (IMAGES, LABELS):
            (folder.path / name).mkdir(parents=True, exist_ok=True)
        self._metadata = AppendFile(folder.path / METADATA, state.mark.get(METADATA, 0))

    def encoded(self, sample: Sample) -> EncodedLabels:
        """The image and the label lines of a sample."""
        name = f"{sample.key}.{image_suffix(self._request)}"
        if self._request.format == "yolo-seg":
            assert sample.mask is not None, "check_model refuses a model without masks"
            text = text_from_mask(sample.mask, objects_from_model(self._model))
        else:
            assert sample.keypoints is not None, "check_model refuses a model without keypoints"
            assert self._request.min_confidence is not None, "checked_request fills it in"
            grid = self._model.label_size
            text = text_from_keypoints(
                sample.keypoints,
                self._request.min_confidence,
                sample.mask,
                grid if all(grid) else (sample.image.shape[0], sample.image.shape[1]),
            )
        viewpoint = viewpoint_from_sample(sample, self._request)
        metadata = metadata_line(sample, viewpoint, {"image": f"{IMAGES}/{name}"})
        return EncodedLabels(name, encoded_image(sample.image, self._request), text, metadata)

    def add(self, encoded: EncodedLabels) -> None:
        """Writes the next sample; raises OSError."""
        (self._folder / IMAGES / encoded.image).write_bytes(encoded.content)
        label = (self._folder / LABELS / encoded.image).with_suffix(".txt")
        label.write_text(encoded.text, "utf-8")
        self._metadata.append(encoded.metadata)

    def mark(self) -> dict[str, int]:
        """The position after the samples written so far, for `DownloadState.mark`."""
        return {METADATA: self._metadata.length}

    def finish(self) -> None:
        """Writes data.yaml."""
        replace_file(self._folder / DATA, data_from_model(self._model, self._request))

    def close(self) -> None:
        """Closes metadata.jsonl."""
        self._metadata.close()


def objects_from_model(model: Model) -> list[LabelClass]:
    """The classes in the order of their numbers in YOLO files: all but the background."""
    return [label for label in model.classes if label.id != _BACKGROUND]


def data_from_model(model: Model, request: Request) -> str:
    """Content of data.yaml."""
    # Without `path`, Ultralytics takes the places from the folder of data.yaml.
    lines = [f"train: {IMAGES}", f"val: {IMAGES}  # the same images: write a set for validation"]
    if request.format == "yolo-seg":
        names = [label.name for label in objects_from_model(model)]
    else:
        names = ["object"]
        points = ", ".join(map(yaml_text, model.keypoints))
        lines += [
            f"kpt_shape: [{len(model.keypoints)}, 3]",
            f"kpt_names: {{0: [{points}]}}",
        ]
    lines += ["names:", *(f"  {number}: {yaml_text(name)}" for number, name in enumerate(names))]
    return "\n".join(lines) + "\n"


def text_from_mask(mask: Array, objects: list[LabelClass]) -> str:
    """Lines of a mask, uint8 [h, w]: one for each connected part of each class."""
    size = np.array(mask.shape[::-1])
    present = set(np.unique(mask).tolist())
    lines = [
        f"{number} " + " ".join(f"{value:.8f}" for value in (outline / size).ravel().tolist())
        for number, label in enumerate(objects)
        if label.id in present
        for outline in outlines_from_mask(mask == label.id)
    ]
    return "".join(line + "\n" for line in lines)


def text_from_keypoints(
    keypoints: Array, min_confidence: float, mask: Array | None, size: tuple[int, int]
) -> str:
    """The line of an image's keypoints; empty if none is visible.

    A keypoint outside of the picture is not labeled, because Ultralytics leaves out an image that
    has one.

    Args:
        keypoints: float32 [K, 3]: x, y in label pixels, confidence.
        min_confidence: of a visible keypoint.
        mask: uint8 [h, w], whose object is the box; None: the box is that of the keypoints.
        size: (h, w) of the label grid.
    """
    extent = np.array(size[::-1], np.float64)
    places = keypoints[:, :2].astype(np.float64) / extent
    inside = ((places >= 0) & (places <= 1)).all(1)  # not of NaN
    seen = inside & (keypoints[:, 2] >= min_confidence)
    if not seen.any():
        return ""
    values: list[Any] = _box(places[seen], mask, extent)
    for (x, y), visible in zip(places.tolist(), seen.tolist(), strict=True):
        values += [x, y, 2] if visible else [0, 0, 0]
    return "0 " + " ".join(f"{v:.8f}" if isinstance(v, float) else str(v) for v in values) + "\n"


def _box(
    places: npt.NDArray[np.float64], mask: Array | None, extent: npt.NDArray[np.float64]
) -> list[float]:
    """Center and size as fractions: of what is not background, or of places [n, 2], at least a
    pixel wide and high."""
    if mask is not None and (mask != _BACKGROUND).any():
        rows, columns = np.nonzero(mask != _BACKGROUND)
        low = np.array([columns.min(), rows.min()]) / extent
        high = np.array([columns.max() + 1, rows.max() + 1]) / extent
    else:
        low = np.maximum(places.min(0) - 0.5 / extent, 0)
        high = np.minimum(places.max(0) + 0.5 / extent, 1)
    return [*((low + high) / 2).tolist(), *(high - low).tolist()]
