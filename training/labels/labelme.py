"""Masks and keypoints from LabelMe JSON files, one per image; later shapes cover earlier ones.

Shapes of type point are keypoints, named by their label. Embedded images, flags and group ids are
not read.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError
from training.images.picture_files import opened_picture
from training.labels.annotations import Annotations, Part, Point, Source, add_point, bytes_of_file
from training.labels.polygons import mask_from_polygons, polygon_from_box, polygon_from_ellipse
from training.labels.scaling import LabelSizes

Corners = list[tuple[float, float]]


class LabelMeShape(msgspec.Struct, frozen=True):
    """One drawn shape."""

    label: str
    points: Corners  # (x, y) in pixels; their meaning depends on shape_type
    shape_type: str = "polygon"
    mask: str | None = None  # shape_type "mask": a PNG in base64, placed at the first point


class LabelMeFile(msgspec.Struct, frozen=True, rename="camel"):
    """One JSON file; fields that are not read are left out."""

    shapes: list[LabelMeShape]
    image_height: int | None = None
    image_width: int | None = None
    flags: Mapping[str, Any] | None = None


def source_from_labelme(folder: Path) -> Source:
    """STEM.json of each labeled image, read one at a time. Raises LabelError."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
    except OSError as error:
        raise LabelError(f"{folder} cannot be read ({error.strerror})") from error

    def images() -> Iterator[Annotations]:
        for path in files:
            yield _annotations(path, _read(path))

    return Source(folder, images, len(files))


def _read(path: Path) -> LabelMeFile:
    try:
        return msgspec.json.decode(bytes_of_file(path), type=LabelMeFile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no LabelMe file: {' '.join(str(error).split())}") from error


def _annotations(path: Path, file: LabelMeFile) -> Annotations:
    size = None
    if file.image_height is not None and file.image_width is not None:
        size = (file.image_height, file.image_width)
    parts = []
    points: dict[str, Point] = {}
    for shape in file.shapes:
        if shape.shape_type == "point":
            if len(shape.points) != 1:
                raise LabelError(f"{path} has a point of {len(shape.points)} points; it needs 1")
            ((x, y),) = shape.points
            add_point(points, shape.label, (x, y, True), str(path))
            continue

        def draw(sizes: LabelSizes, shape: LabelMeShape = shape) -> NDArray[np.bool_]:
            return _region(path, shape, size or (sizes.height, sizes.width), sizes)

        _check(path, shape)
        parts.append(Part(shape.label, draw))
    flags = ("flag",) * sum(bool(value) for value in (file.flags or {}).values())
    return Annotations(
        path.name, str(path), size, tuple(parts), points=points or None, left_out=flags
    )


def _check(path: Path, shape: LabelMeShape) -> None:
    needed = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}
    kind, count = shape.shape_type, len(shape.points)
    if kind in needed and count != needed[kind]:
        raise LabelError(f"{path} has a {kind} of {count} points; it needs {needed[kind]}")
    if kind not in {*needed, "polygon"}:
        raise LabelError(
            f"{path} has a shape of type {kind!r} ({shape.label!r}); masks are read from the types "
            f"polygon, {', '.join(needed)}, keypoints from point: change the shape, or delete it"
        )


def _region(
    path: Path, shape: LabelMeShape, size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    points = shape.points
    if shape.shape_type == "mask":
        return sizes.resized(path, _region_of_mask(path, shape, size))
    if shape.shape_type == "rectangle":
        (x0, y0), (x1, y1) = points
        outline = polygon_from_box(x0, y0, x1 - x0, y1 - y0)
    elif shape.shape_type == "circle":
        (x, y), (x1, y1) = points
        outline = polygon_from_ellipse((x, y), [np.hypot(x1 - x, y1 - y)] * 2)
    else:
        outline = [value for point in points for value in point]
    return mask_from_polygons(path, [outline], size, sizes)


def _region_of_mask(path: Path, shape: LabelMeShape, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Region of a shape of type mask, bool [height, width] of the label's size."""
    try:
        data = base64.b64decode(shape.mask or "", validate=True)
    except ValueError as error:
        raise LabelError(f"{path} has a mask that is no PNG in base64: {error}") from error
    left, top = (round(value) for value in shape.points[0])
    with opened_picture(
        io.BytesIO(data), f"{path} has a mask that is no PNG in base64; it"
    ) as image:
        bottom, right = top + image.height, left + image.width
        if min(top, left) < 0 or bottom > size[0] or right > size[1]:
            raise LabelError(f"{path} has a mask that reaches past the image")
        part = np.array(image.convert("L")) > 0
    region = np.zeros(size, bool)
    region[top:bottom, left:right] = part
    return region
