"""Masks as LabelMe's JSON files, one for each image; later shapes cover earlier ones."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Classes, classes_from_names
from training.errors import LabelError
from training.labels.polygons import circle, filled, painted
from training.labels.scaling import Extents, files_by_stem

BACKGROUND, IGNORE = "_background_", "__ignore__"  # LabelMe's own names


class Shape(msgspec.Struct, frozen=True):
    """One drawn outline."""

    label: str
    points: list[tuple[float, float]]
    shape_type: str = "polygon"
    mask: str | None = None  # of shape_type mask: a PNG in base64 at the points' rectangle


class LabelMeFile(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that are read; LabelMe writes more."""

    shapes: list[Shape]
    image_height: int
    image_width: int


Files = Mapping[str, tuple[Path, LabelMeFile]]  # by stem


def read_labelme(folder: Path, extents: Mapping[str, Extents]) -> Files:
    """<stem>.json of every labelled image. Raises LabelError."""
    files = files_by_stem(folder, (".json",), extents)
    return {stem: (path, _read(path)) for stem, path in files.items()}


def classes_of_labelme(files: Files) -> Classes:
    """The background and every label that is used, by alphabet."""
    used = {shape.label for _, file in files.values() for shape in file.shapes}
    names = sorted(used - {BACKGROUND, IGNORE})
    return classes_from_names(["background", *names])


def masks_from_labelme(
    files: Files,
    extents: Mapping[str, Extents],
    classes: Classes,
    ignore_id: int,
) -> dict[str, NDArray[np.uint8]]:
    """uint8 [H, W] by stem. Raises LabelError."""
    ids = {card.name: i for i, card in enumerate(classes.cards)}
    ids |= {BACKGROUND: 0, IGNORE: ignore_id}
    masks = {}
    for stem, (path, file) in files.items():
        size = (file.image_width, file.image_height)
        extents[stem].scale(path, *size)
        parts = []
        for shape in file.shapes:
            if shape.label not in ids:
                known = ", ".join(card.name for card in classes.cards)
                raise LabelError(f"{path} has the label {shape.label!r}; the classes are {known}")
            parts.append((ids[shape.label], _region(path, shape, size, extents[stem])))
        masks[stem] = painted(parts, extents[stem])
    return masks


def _read(path: Path) -> LabelMeFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabelMeFile)
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no LabelMe file: {' '.join(str(error).split())}") from error


def _region(path: Path, shape: Shape, size: tuple[int, int], extents: Extents) -> NDArray[np.bool_]:
    kind, points = shape.shape_type, shape.points
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise LabelError(f"{path} has a {kind} of {len(points)} points; it needs 2")
    if kind == "polygon":
        outline = [value for point in points for value in point]
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        outline = [x0, y0, x1, y0, x1, y1, x0, y1]
    elif kind == "circle":
        outline = circle(points[0], points[1])
    elif kind == "mask":
        return extents.resized(path, _pasted(path, shape, size))
    else:
        raise LabelError(
            f"{path} has a shape of type {kind!r}; masks are made of polygon, rectangle, circle "
            "and mask"
        )
    return filled(path, [outline], size, extents)


def _pasted(path: Path, shape: Shape, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask shape at its place, bool [h, w] of the label's size."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask or "", validate=True))) as image:
            part = np.array(image.convert("L")) > 0
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise LabelError(f"{path} has a mask that is no PNG in base64: {error}") from error
    left, top = (round(value) for value in shape.points[0])
    whole = np.zeros((size[1], size[0]), bool)
    if not (0 <= left <= size[0] - part.shape[1] and 0 <= top <= size[1] - part.shape[0]):
        raise LabelError(f"{path} has a mask that reaches past the image")
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole
