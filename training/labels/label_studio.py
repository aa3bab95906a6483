"""Masks and keypoints from Label Studio: JSON, JSON-MIN, and its PNG export of brush strokes.

Regions are painted in the order of the file, later over earlier. PNG have no order: smaller regions
cover larger ones. coco.py reads its COCO files, which Label Studio writes without brush strokes.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelmint.errors import printable_from_text
from training.errors import LabelError
from training.labels.annotations import (
    Annotations,
    Part,
    Point,
    Source,
    add_point,
    bytes_of_file,
)
from training.labels.brush import LEAST_ALPHA, mask_from_brush
from training.labels.names import file_of_name
from training.labels.png import files_of_folder, open_upright
from training.labels.polygons import mask_from_polygons, polygon_from_box, polygon_from_ellipse
from training.labels.scaling import LabelSizes

PICTURE = re.compile(r"\.(?:png|jpe?g|bmp|webp|tiff?|gif)\Z", re.IGNORECASE)
PNG_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-[^-]*-[^-]+-(.+)-\d+\Z")
REGIONS = ("rectangle", "polygon", "ellipse", "brush", "keypoint")
REFUSED = ("vector", "bitmask", "videorectangle", "timeline")

Record = dict[str, Any]


def source_from_label_studio(path: Path) -> Source:
    """Reads JSON or JSON-MIN. The file is in memory, regions are drawn one image at a time.

    Raises LabelError.
    """
    tasks = _tasks(path)

    def images() -> Iterator[Annotations]:
        for task in tasks:
            name, origin = _image_of_task(path, task), _origin(path, task)
            try:
                yield _annotations(origin, name, _results(origin, task))
            except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
                text = " ".join(str(error).split())
                raise LabelError(f"{origin} is not as Label Studio writes it: {text}") from error

    return Source(path, images, len(tasks))


def source_from_label_studio_png(folder: Path) -> Source:
    """Reads a folder of task-3-annotation-3-by-1-tag-LABEL-0.png, one for each label, and the JSON
    or JSON-MIN export beside them, which says which image task 3 is. Raises LabelError."""
    files = files_of_folder(folder, (".png",))
    exports = sorted(folder.glob("*.json"))
    if len(exports) != 1:
        raise LabelError(
            f"{folder} has {len(exports)} .json files; put the JSON or JSON-MIN export of the same "
            "tasks beside the PNG: their names have the number of the task, not the image"
        )
    tasks = {str(task.get("id")): task for task in _tasks(exports[0])}
    groups: dict[str, dict[str, list[tuple[Path, str]]]] = {}  # by task and annotation
    for path in files:
        match = PNG_NAME.match(path.stem)
        if match is None or match[1] not in tasks:
            raise LabelError(
                f"{path} is not called task-3-annotation-3-by-1-tag-LABEL-0.png for a task of "
                f"{exports[0].name}"
            )
        groups.setdefault(match[1], {}).setdefault(match[2], []).append((path, match[3]))

    def images() -> Iterator[Annotations]:
        for task, annotations in groups.items():
            origin = f"{folder}, task {task}"
            if len(annotations) > 1:
                raise LabelError(f"{origin} has {len(annotations)} annotations; keep one")
            parts = [
                Part(label, partial(_region_of_png, path))
                for path, label in next(iter(annotations.values()))
            ]
            yield Annotations(_image_of_task(exports[0], tasks[task]), origin, None, tuple(parts))

    return Source(folder, images, len(groups), smaller_on_top=True)


def _tasks(path: Path) -> list[Record]:
    try:
        tasks = msgspec.json.decode(bytes_of_file(path), type=list[dict[str, Any]])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(
            f"{path} is no JSON or JSON-MIN export of Label Studio: {' '.join(str(error).split())}"
        ) from error
    return tasks


def _image_of_task(path: Path, task: Record) -> str:
    """Name of the task's image: the only value of its data that is called like a picture."""
    data = task.get("data", task)
    names = [
        value
        for value in (data.values() if isinstance(data, dict) else ())
        if isinstance(value, str) and PICTURE.search(file_of_name(value))
    ]
    upload = task.get("file_upload")
    if len(set(names)) != 1 and isinstance(upload, str) and PICTURE.search(upload):
        names = [upload]
    if len(set(names)) != 1:
        raise LabelError(
            f"{_origin(path, task)} names {len(set(names))} pictures; it must name one"
        )
    return names[0]


def _origin(path: Path, task: Record) -> str:
    return f"{path}, task {printable_from_text(str(task.get('id', '?')), 80)}"


def _results(origin: str, task: Record) -> list[Record]:
    """Results of the task's annotation, in the form of JSON."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):
        return _results_of_min(task)
    kept = [a for a in annotations if not (a.get("was_cancelled") or a.get("skipped"))]
    true = [a for a in kept if a.get("ground_truth")]
    kept = true if len(true) == 1 else kept
    if len(kept) > 1:
        raise LabelError(
            f"{origin} has {len(kept)} annotations; keep one, or mark one as ground truth"
        )
    return _with_labels(list(kept[0].get("result") or [])) if kept else []


def _results_of_min(task: Record) -> list[Record]:
    results = []
    for value in task.values():
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict):
                kinds = [key for key in item if key.endswith("labels") or key == "choices"]
                if not kinds:
                    continue
                kind = next((key for key in kinds if key != "labels"), _kind_of_shape(item))
                results.append({**item, "type": kind, "value": item})
    return results


def _kind_of_shape(item: Record) -> str:
    """Type of a region that has its name in `labels`."""
    for key, kind in (("points", "polygon"), ("radiusX", "ellipse"), ("rle", "brush")):
        if key in item:
            return kind
    return "rectangle" if "height" in item else "keypoint"


def _with_labels(results: list[Record]) -> list[Record]:
    """Joins the shape of an id with the name that another result of the same id gives it."""
    names = {
        r.get("id"): r["value"]["labels"]
        for r in results
        if r.get("type") == "labels" and "labels" in r.get("value", {})
    }
    joined = []
    for result in results:
        kind, value = result.get("type"), result.get("value", {})
        if kind == "labels":
            if not any(r.get("id") == result.get("id") and r is not result for r in results):
                joined.append({**result, "type": _kind_of_shape(value)})
            continue
        if kind in REGIONS and result.get("id") in names:
            result = {**result, "value": {**value, "labels": names[result.get("id")]}}
        joined.append(result)
    return joined


def _annotations(origin: str, name: str, results: Sequence[Record]) -> Annotations:
    parts: list[Part] = []
    points: dict[str, Point] = {}
    left_out, sizes_seen = [], set()
    for result in results:
        kind = str(result.get("type", "")).removesuffix("labels")
        if kind in REFUSED:
            raise LabelError(
                f"{origin} has a region of type {result['type']!r}; masks are read from "
                "rectangles, polygons, ellipses and brush strokes, keypoints from keypoints"
            )
        if kind not in REGIONS:
            left_out.append(str(result.get("type")))
            continue
        if result.get("image_rotation"):
            raise LabelError(f"{origin} was turned while it was labeled; turn the image itself")
        size = (int(result["original_height"]), int(result["original_width"]))
        sizes_seen.add(size)
        value = result["value"]
        label = _label(origin, value)
        if kind == "keypoint":
            x, y = (float(value[key]) / 100 for key in ("x", "y"))
            add_point(points, label, (x * size[1], y * size[0], True), origin)
            continue

        def draw(
            sizes: LabelSizes, kind: str = kind, value: Record = value, size: tuple[int, int] = size
        ) -> NDArray[np.bool_]:
            try:
                return _region(origin, kind, value, size, sizes)
            except (TypeError, KeyError, ValueError, OverflowError) as error:
                raise LabelError(f"{origin} has a {kind} that cannot be read: {error}") from error

        parts.append(Part(label, draw))
    if len(sizes_seen) > 1:
        raise LabelError(f"{origin} has regions of images of {len(sizes_seen)} sizes")
    size_or_none = next(iter(sizes_seen), None)
    return Annotations(
        name, origin, size_or_none, tuple(parts), points=points or None, left_out=tuple(left_out)
    )


def _label(origin: str, value: Mapping[str, Any]) -> str:
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            if len(labels) > 1:
                raise LabelError(f"{origin} has a region with the labels {labels}; give it one")
            return str(labels[0])
    raise LabelError(f"{origin} has a region without a label; give it one, or delete it")


def _region(
    origin: str, kind: str, value: Record, size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    """Coordinates are percent of the image; rotations are clockwise, in degrees."""
    height, width = size
    if kind == "brush":
        return sizes.resized(origin, mask_from_brush(origin, value["rle"], size))
    if kind == "polygon":
        corners = [(x * width / 100, y * height / 100) for x, y in value["points"]]
        outline = [coordinate for corner in corners for coordinate in corner]
    else:
        x, y = value["x"] * width / 100, value["y"] * height / 100
        turn = value.get("rotation") or 0
        if not math.isfinite(turn):
            raise LabelError(f"{origin} has a {kind} whose rotation is {turn}")
        if kind == "ellipse":
            radii = (value["radiusX"] * width / 100, value["radiusY"] * height / 100)
            outline = polygon_from_ellipse((x, y), radii, turn)
        else:
            w, h = value["width"] * width / 100, value["height"] * height / 100
            outline = polygon_from_box(x, y, w, h, turn)
    return mask_from_polygons(origin, [outline], size, sizes)


def _region_of_png(path: Path, sizes: LabelSizes) -> NDArray[np.bool_]:
    return sizes.resized(path, np.array(open_upright(path, sizes).convert("L")) >= LEAST_ALPHA)


def is_png_export(folder: Path) -> bool:
    """Whether the folder has files named like Label Studio's PNG export."""
    return any(PNG_NAME.match(PurePosixPath(p.name).stem) for p in folder.glob("task-*.png"))
