"""Masks and keypoints from LabelMe JSON files, one per image.

Shapes of type point are keypoints, named by their labels. All others are regions, and later ones
cover earlier ones.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Classes, classes_from_names
from training.errors import IMAGE_DECODE_ERRORS, LabelError
from training.labels.coco import KeypointLabels
from training.labels.polygons import mask_from_parts, mask_from_polygons, polygon_from_circle
from training.labels.scaling import LabelSizes, files_by_stem

BACKGROUND, IGNORE = "_background_", "__ignore__"  # labels with a meaning in LabelMe
POINT = "point"  # shape_type of a keypoint


class LabelMeShape(msgspec.Struct, frozen=True):
    """One drawn shape."""

    label: str
    points: list[tuple[float, float]]  # (x, y) in pixels; their meaning depends on shape_type
    shape_type: str = "polygon"
    mask: str | None = None  # shape_type "mask": a PNG in base64, placed at the first point


class LabelMeFile(msgspec.Struct, frozen=True, rename="camel"):
    """One JSON file; fields that are not read are left out."""

    shapes: list[LabelMeShape]
    image_height: int
    image_width: int

    @property
    def points(self) -> list[LabelMeShape]:
        """The keypoints."""
        return [shape for shape in self.shapes if shape.shape_type == POINT]

    @property
    def regions(self) -> list[LabelMeShape]:
        """The shapes that masks are made of."""
        return [shape for shape in self.shapes if shape.shape_type != POINT]


LabelMeFiles = Mapping[str, tuple[Path, LabelMeFile]]  # by stem


def read_labelme(folder: Path, sizes: Mapping[str, LabelSizes]) -> LabelMeFiles:
    """Reads STEM.json of each labeled image. Raises LabelError."""
    files = files_by_stem(folder, (".json",), sizes)
    return {stem: (path, _read(path)) for stem, path in files.items()}


def classes_from_labelme(files: LabelMeFiles) -> Classes:
    """Class 0 "background", then the labels of regions in use, in alphabetical order."""
    used = {shape.label for _, file in files.values() for shape in file.regions}
    names = sorted(used - {BACKGROUND, IGNORE})
    return classes_from_names(["background", *names])


def masks_from_labelme(
    files: LabelMeFiles,
    sizes: Mapping[str, LabelSizes],
    classes: Classes,
    ignore_id: int,
) -> dict[str, NDArray[np.uint8]]:
    """Class ids uint8 [H, W] by stem, without the files of points alone. Raises LabelError."""
    ids = {card.name: i for i, card in enumerate(classes.cards)}
    ids |= {BACKGROUND: 0, IGNORE: ignore_id}
    masks = {}
    for stem, (path, file) in files.items():
        size = (file.image_height, file.image_width)
        sizes[stem].scale(path, size)  # checked even when there is no shape
        if file.points and not file.regions:
            continue
        parts = []
        for shape in file.regions:
            if shape.label not in ids:
                known = ", ".join(card.name for card in classes.cards)
                raise LabelError(f"{path} has the label {shape.label!r}; the classes are {known}")
            parts.append((ids[shape.label], _region_of_shape(path, shape, size, sizes[stem])))
        masks[stem] = mask_from_parts(parts, sizes[stem])
    return masks


def keypoints_from_labelme(
    files: LabelMeFiles, sizes: Mapping[str, LabelSizes]
) -> KeypointLabels | None:
    """Keypoints in the alphabetical order of their names; None if no file has a point.

    A point that a file lacks beside others is absent from its image. A file without points labels
    no keypoints. Raises LabelError.
    """
    names = sorted({shape.label for _, file in files.values() for shape in file.points})
    labels = {}
    for stem, (path, file) in files.items():
        scale = sizes[stem].scale(path, (file.image_height, file.image_width))
        row = np.zeros((len(names), 3), np.float32)
        for shape in file.points:
            k = names.index(shape.label)
            if row[k, 2]:
                raise LabelError(
                    f"{path} has two points {shape.label!r}; name each keypoint differently, "
                    "such as left_eye and right_eye"
                )
            if len(shape.points) != 1 or not np.isfinite(shape.points).all():
                raise LabelError(f"{path} has a point {shape.label!r} at {shape.points}")
            row[k] = (*(np.array(shape.points[0]) * scale), 1)
        if file.points:
            labels[stem] = row
    return KeypointLabels(tuple(names), (), labels) if labels else None


def _read(path: Path) -> LabelMeFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabelMeFile)
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no LabelMe file: {' '.join(str(error).split())}") from error


def _region_of_shape(
    path: Path, shape: LabelMeShape, size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    kind, points = shape.shape_type, shape.points
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise LabelError(f"{path} has a {kind} of {len(points)} points; it needs 2")
    if kind == "polygon":
        outline = [value for point in points for value in point]
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        outline = [x0, y0, x1, y0, x1, y1, x0, y1]
    elif kind == "circle":
        outline = polygon_from_circle(points[0], points[1])
    elif kind == "mask":
        return sizes.resized(path, _region_of_mask(path, shape, size))
    else:
        raise LabelError(
            f"{path} has a shape of type {kind!r}; masks are read from the types polygon, "
            "rectangle, circle and mask, keypoints from the type point"
        )
    return mask_from_polygons(path, [outline], size, sizes)


def _region_of_mask(path: Path, shape: LabelMeShape, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Region of a shape of type mask, bool [height, width] of the label's size."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask or "", validate=True))) as image:
            part = np.array(image.convert("L")) > 0
    except IMAGE_DECODE_ERRORS as error:
        raise LabelError(f"{path} has a mask that is no PNG in base64: {error}") from error
    left, top = (round(value) for value in shape.points[0])
    bottom, right = top + part.shape[0], left + part.shape[1]
    if min(top, left) < 0 or bottom > size[0] or right > size[1]:
        raise LabelError(f"{path} has a mask that reaches past the image")
    region = np.zeros(size, bool)
    region[top:bottom, left:right] = part
    return region
