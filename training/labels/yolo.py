"""Masks and keypoints from YOLO text: one file per image, one line per object, sizes as fractions.

    3 0.1 0.1 0.5 0.1 0.5 0.4             class and polygon, of a segmentation set
    0 0.5 0.5 0.8 0.8 0.3 0.4 2 ...       class, box and keypoints, where data.yaml has kpt_shape
    3 0.5 0.5 0.8 0.8                     class and box: no region

Smaller regions cover larger ones, as in Ultralytics' own masks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError
from training.labels.annotations import (
    Annotations,
    Part,
    Point,
    ReadingRules,
    Source,
    add_point,
    bytes_of_file,
)
from training.labels.data_yaml import Keypoints, names_of_folder
from training.labels.polygons import mask_from_polygons, polygon_from_box
from training.labels.scaling import LabelSizes

NO_LABELS = {"classes", "train", "val", "valid", "test", "requirements", "license"}  # .txt
SLACK = 0.02  # past the image; tools round


def source_from_yolo(folder: Path, rules: ReadingRules) -> Source:
    """Reads the .txt of each image one at a time. Raises LabelError."""
    names, keypoints = names_of_folder(folder)
    files = sorted(p for p in folder.rglob("*.txt") if "labels" in p.relative_to(folder).parts)
    files = files or sorted(
        p
        for p in folder.rglob("*.txt")
        if p.stem.casefold() not in NO_LABELS and not p.name.startswith("README")
    )

    def images() -> Iterator[Annotations]:
        for path in files:
            yield _annotations(path, names, keypoints, rules)

    points = None if keypoints is None else tuple(keypoints.names)
    return Source(
        folder,
        images,
        len(files),
        tuple(names.values()) if keypoints is None else (),
        keypoint_names=points,
        smaller_on_top=True,
    )


def _annotations(
    path: Path, names: Mapping[int, str], keypoints: Keypoints | None, rules: ReadingRules
) -> Annotations:
    parts: list[Part] = []
    points: dict[str, Point] = {}
    boxes = 0
    try:
        lines = bytes_of_file(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is no text: {error.reason}") from error
    objects = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        origin = f"{path}, line {number}"
        values = _values(origin, line)
        outside = [v for v in values[1:5] if not -SLACK <= v <= 1 + SLACK]
        if outside:
            raise LabelError(
                f"{origin} has the coordinate {outside[0]:g}; they are fractions of the image, in "
                "[0, 1]"
            )
        label = names.get(int(values[0])) if values[0].is_integer() else None
        if label is None:
            raise LabelError(
                f"{origin} has class {values[0]:g}; data.yaml names {min(names)} to {max(names)}"
            )
        if keypoints is not None:
            objects += 1
            if objects > 1:
                raise LabelError(f"{origin} is a second object; labels are of one object")
            points = _points(origin, values, keypoints)
            continue
        if len(values) == 5 and rules.boxes == "leave-out":
            boxes += 1
            continue
        if len(values) == 5:
            x, y, width, height = values[1:]
            outline = polygon_from_box(x - width / 2, y - height / 2, width, height)
        elif len(values) >= 7 and len(values) % 2:
            outline = values[1:]
        else:
            raise LabelError(
                f"{origin} has {len(values)} numbers; a polygon has a class and at least 3 pairs"
                + ("; a pose set needs kpt_shape in data.yaml" if len(values) > 5 else "")
            )

        def draw(
            sizes: LabelSizes, outline: list[float] = outline, origin: str = origin
        ) -> NDArray[np.bool_]:
            size = (sizes.height, sizes.width)
            corners = np.array(outline).reshape(-1, 2) * (sizes.width, sizes.height)
            return mask_from_polygons(origin, [corners.ravel().tolist()], size, sizes)

        parts.append(Part(label, draw))
    return Annotations(
        path.name,
        str(path),
        None,
        tuple(parts),
        points=points or None,
        fractions=True,
        left_out=("box",) * boxes,
    )


def _values(origin: str, line: str) -> list[float]:
    try:
        values = [float(text) for text in line.split()]
    except ValueError as error:
        raise LabelError(f"{origin} is no line of numbers: {line[:40]!r}") from error
    if len(values) < 5 or not np.isfinite(values).all():
        raise LabelError(f"{origin} has {len(values)} numbers; it needs at least 5 that are finite")
    return values


def _points(origin: str, values: list[float], keypoints: Keypoints) -> dict[str, Point]:
    count, dims = keypoints.count, keypoints.dims
    if len(values) != 5 + count * dims:
        raise LabelError(
            f"{origin} has {len(values)} numbers; {count} keypoints of {dims} need "
            f"{5 + count * dims}"
        )
    points: dict[str, Point] = {}
    for name, row in zip(keypoints.names, np.reshape(values[5:], (count, dims)), strict=True):
        x, y = (float(value) for value in row[:2])
        visible = bool(row[2] > 0) if dims == 3 else (x, y) != (0, 0)
        add_point(points, name, (x, y, visible), origin)
    return points
