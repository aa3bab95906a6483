"""Masks and keypoints from YOLO text: one file per image, one line per object, sizes as fractions.

    3 0.1 0.1 0.5 0.1 0.5 0.4             class and polygon, of a segmentation set
    0 0.5 0.5 0.8 0.8 0.3 0.4 2 ...       class, box and keypoints, where data.yaml has kpt_shape
    3 0.5 0.5 0.8 0.8                     class and box: no region

Smaller regions cover larger ones, as in Ultralytics' own masks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
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
from training.labels.polygons import mask_from_polygons, polygon_from_box
from training.labels.scaling import LabelSizes

DATA = ("data.yaml", "dataset.yaml", "data.yml")
NO_LABELS = {"classes", "train", "val", "valid", "test", "requirements", "license"}  # .txt
MAX_DATA_BYTES = 1 << 20  # of data.yaml
MAX_NUMBER = 1 << 63  # of classes, and of names that are numbers
SLACK = 0.02  # past the image; tools round


def source_from_yolo(folder: Path, rules: ReadingRules) -> Source:
    """Reads the .txt of each image one at a time. Raises LabelError."""
    names, keypoints = _data(folder)
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


class _Keypoints:
    """Shape and names of the keypoints of a pose set."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        shape = data["kpt_shape"]
        if not (
            isinstance(shape, list)
            and len(shape) == 2
            and all(isinstance(n, int) for n in shape)
            and 1 <= shape[0] <= 1000
            and shape[1] in (2, 3)
        ):
            raise LabelError(
                f"{path}: kpt_shape must be [count, 2] or [count, 3], count up to 1000"
            )
        self.count, self.dims = shape
        names = data.get("kpt_names")
        if isinstance(names, dict) and names:
            names = next(iter(names.values()))
        if not isinstance(names, list) or len(names) != self.count or not _scalars(names):
            names = [f"keypoint_{i}" for i in range(self.count)]
        self.names = [str(name) for name in names]


def _data(folder: Path) -> tuple[dict[int, str], _Keypoints | None]:
    """Names of the classes by id, and keypoints, of data.yaml or classes.txt."""
    path = next((p for name in DATA if (p := folder / name).exists()), None)
    if path is None:
        listed = folder / "classes.txt"  # Label Studio's and makesense's
        if not listed.exists():
            raise LabelError(f"{folder} has no data.yaml or classes.txt, with the names of classes")
        lines = bytes_of_file(listed).decode("utf-8", "replace").splitlines()
        return dict(enumerate(line.strip() for line in lines if line.strip())), None
    try:
        data = yaml.safe_load(bytes_of_file(path, MAX_DATA_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(map(_is_number, names)):
        names = {}
    if not names or not _scalars(list(names.values())):
        raise LabelError(f"{path} has no list `names` of the classes")
    found = {i: str(names[i]) for i in sorted(names)}
    return found, _Keypoints(path, data) if data.get("kpt_shape") is not None else None


def _scalars(values: list[object]) -> bool:
    """Whether all are plain. Lists may hold themselves many times over, by YAML's aliases."""
    return all(isinstance(value, str | float) or _is_number(value) for value in values)


def _is_number(value: object) -> bool:
    """Whether it is an integer that Python writes; it refuses those of over 4,300 digits."""
    return isinstance(value, int) and abs(value) < MAX_NUMBER


def _annotations(
    path: Path, names: Mapping[int, str], keypoints: _Keypoints | None, rules: ReadingRules
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


def _points(origin: str, values: list[float], keypoints: _Keypoints) -> dict[str, Point]:
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
