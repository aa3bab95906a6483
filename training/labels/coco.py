"""Masks and keypoints from a COCO JSON file, as COCO, CVAT, Roboflow and Label Studio write it.

Smaller regions cover larger ones. A region with `iscrowd` 1 is of its category's class: CVAT writes
that of every brushed mask, and what COCO calls a crowd, a group of people, are still people. A box
without a region is left out, since the pixels of its corners are not of its class.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelmint.errors import printable_from_text
from training.errors import LabelError
from training.labels.annotations import (
    IGNORE,
    Annotations,
    Part,
    Point,
    ReadingRules,
    Source,
    bytes_of_file,
)
from training.labels.polygons import (
    counts_from_text,
    mask_from_counts,
    mask_from_polygons,
    polygon_from_box,
)
from training.labels.scaling import LabelSizes

Id = int | str


class Category(msgspec.Struct, frozen=True):
    """A class of masks, or a kind of object with keypoints."""

    id: Id
    name: str
    supercategory: str | None = None
    keypoints: list[str] | None = None
    skeleton: list[tuple[int, int]] | None = None  # pairs of keypoints, counted from 1


class CocoImage(msgspec.Struct, frozen=True):
    """An image that annotations refer to by its id."""

    id: Id
    file_name: str
    width: int
    height: int


class RunLengths(msgspec.Struct, frozen=True):
    """A mask as run lengths in column order; a string if compressed."""

    counts: str | list[int]
    size: tuple[int, int]  # (height, width)


Segmentation = list[list[float] | float] | RunLengths


class Annotation(msgspec.Struct, frozen=True):
    """Mask, keypoints, box, or several of them, of one object in an image."""

    image_id: Id
    category_id: Id
    segmentation: Segmentation | None = None
    keypoints: list[float] | None = None  # x, y, v of each keypoint of the category
    bbox: list[float] | None = None  # left, top, width, height
    iscrowd: int | bool = 0


class CocoFile(msgspec.Struct, frozen=True):
    """The whole file; fields that are not read are left out."""

    images: list[CocoImage]
    annotations: list[Annotation]
    categories: list[Category]


def source_from_coco(
    path: Path, rules: ReadingRules, wanted: Literal["masks", "keypoints"] = "masks"
) -> Source:
    """Reads a file of masks, and of keypoints if it has those of one object per image; or a file of
    keypoints alone. The file is in memory, its regions are drawn one image at a time.

    Raises LabelError.
    """
    file = _read(path)
    notes: list[str] = []
    skilled = None
    try:
        skilled = _category_with_keypoints(path, file)
    except LabelError as error:
        if wanted == "keypoints":
            raise
        notes.append(f"keypoints left out: {error}")
    if wanted == "masks":
        labels, more = _labels(path, file, rules)
        notes += more
    if wanted == "keypoints" and skilled is None:
        raise LabelError(f"{path} has 0 categories with names of keypoints; it must have one")
    names = None if skilled is None else tuple(skilled.keypoints or ())
    by_image: dict[Id, list[Annotation]] = {}
    for annotation in file.annotations:
        by_image.setdefault(annotation.image_id, []).append(annotation)

    def images() -> Iterator[Annotations]:
        for image in file.images:
            found = by_image.get(image.id, [])
            origin = f"{path} ({printable_from_text(image.file_name)})"
            points = None if skilled is None else _points(origin, found, skilled)
            parts, boxes = _parts(origin, found, image, categories, rules)
            yield Annotations(
                image.file_name,
                origin if found else str(path),
                (image.height, image.width),
                parts if wanted == "masks" else (),
                points=points,
                left_out=("box",) * boxes,
            )

    categories = {category.id: category.name for category in file.categories}
    return Source(
        path,
        images,
        len(file.images),
        labels if wanted == "masks" else (),
        keypoint_names=names,
        skeleton=() if skilled is None else _skeleton(path, skilled),
        smaller_on_top=True,
        notes=tuple(notes),
    )


def _read(path: Path) -> CocoFile:
    """Reads the file and checks that annotations refer to listed ids. Raises LabelError."""
    try:
        file = msgspec.json.decode(bytes_of_file(path), type=CocoFile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no COCO file: {' '.join(str(error).split())}") from error
    for what, ids in (
        ("image", [i.id for i in file.images]),
        ("category", [c.id for c in file.categories]),
    ):
        doubled = [id_ for id_, count in Counter(ids).items() if count > 1]
        if doubled:
            raise LabelError(f"{path} lists {what} {doubled[0]} twice")
    images, categories = {i.id for i in file.images}, {c.id for c in file.categories}
    for annotation in file.annotations:
        if annotation.image_id not in images or annotation.category_id not in categories:
            raise LabelError(
                f"{path} has an annotation of image {annotation.image_id} and category "
                f"{annotation.category_id}, which it does not list"
            )
    return file


def _labels(path: Path, file: CocoFile, rules: ReadingRules) -> tuple[tuple[str, ...], list[str]]:
    """Names of the categories that are classes, in the order of their ids, and notes.

    No class is a category without annotations that the others name as their supercategory
    (Roboflow's root), or one that has keypoints and no region.
    """
    used = Counter(annotation.category_id for annotation in file.annotations)
    drawn = {
        a.category_id
        for a in file.annotations
        if _has_region(a) or (rules.boxes == "paint" and _has_box(a))
    }
    parents = {c.supercategory for c in file.categories}
    labels, notes = [], []
    for category in sorted(file.categories, key=lambda c: (isinstance(c.id, str), c.id)):
        if not used[category.id] and category.name in parents - {None}:
            others = [c for c in file.categories if c.supercategory == category.name]
            if any(c.name != category.name for c in others):
                notes.append(
                    f"no class: {category.name!r} of {path}, the supercategory of the others, "
                    "which no annotation has"
                )
                continue
        if category.keypoints and category.id not in drawn:
            continue
        if category.name not in labels:
            labels.append(category.name)
    crowds = sum(bool(a.iscrowd) and _has_region(a) for a in file.annotations)
    if crowds:
        taken = (
            "are ignored pixels"
            if rules.crowds == "ignore"
            else "are of their category's class (--crowds ignore leaves their pixels out)"
        )
        notes.append(f"{crowds} regions of {path} with iscrowd 1 {taken}")
    return tuple(labels), notes


def _has_region(annotation: Annotation) -> bool:
    segmentation = annotation.segmentation
    return isinstance(segmentation, RunLengths) or bool(segmentation and segmentation[0] != [])


def _has_box(annotation: Annotation) -> bool:
    return bool(annotation.bbox and not annotation.keypoints)


def _parts(
    origin: str,
    annotations: list[Annotation],
    image: CocoImage,
    categories: dict[Id, str],
    rules: ReadingRules,
) -> tuple[tuple[Part, ...], int]:
    """Regions of an image, and the number of boxes left out."""
    parts, boxes = [], 0
    for annotation in annotations:
        segmentation = annotation.segmentation
        if not _has_region(annotation):
            if not _has_box(annotation):
                continue
            if rules.boxes == "leave-out":
                boxes += 1
                continue
            segmentation = [_outline_of_box(origin, annotation)]
        label = categories[annotation.category_id]
        if annotation.iscrowd and rules.crowds == "ignore":
            label = IGNORE

        def draw(
            sizes: LabelSizes, segmentation: Segmentation | None = segmentation
        ) -> NDArray[np.bool_]:
            return _region(origin, segmentation, image, sizes)

        parts.append(Part(label, draw))
    return tuple(parts), boxes


def _outline_of_box(origin: str, annotation: Annotation) -> list[float]:
    if annotation.bbox is None or len(annotation.bbox) != 4:
        raise LabelError(f"{origin} has a bbox {annotation.bbox}; it needs 4 numbers")
    left, top, width, height = annotation.bbox
    return list(polygon_from_box(left, top, width, height))


def _region(
    origin: str, segmentation: Segmentation | None, image: CocoImage, sizes: LabelSizes
) -> NDArray[np.bool_]:
    size = (image.height, image.width)
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if isinstance(polygon, list)]
        numbers = [number for number in segmentation if not isinstance(number, list)]
        if numbers and polygons:
            raise LabelError(f"{origin} has a segmentation that mixes numbers and lists")
        if numbers:
            polygons = [numbers]  # one flat polygon
        return mask_from_polygons(origin, polygons, size, sizes)
    assert segmentation is not None  # annotations without one are no parts
    height, width = segmentation.size
    if (height, width) != size:
        raise LabelError(f"{origin} has a mask of {width}x{height}")
    counts = segmentation.counts
    if isinstance(counts, str):
        counts = counts_from_text(counts)
    return sizes.resized(origin, mask_from_counts(origin, counts, size))


def _category_with_keypoints(path: Path, file: CocoFile) -> Category | None:
    """The only category that has keypoints, one object per image; None without any.

    Raises LabelError.
    """
    kinds = [c for c in file.categories if c.keypoints]
    if len(kinds) != 1:
        used = sorted({a.category_id for a in file.annotations if a.keypoints}, key=str)
        if kinds or used:
            named = ", ".join(repr(c.name) for c in kinds) or f"none of {used}"
            raise LabelError(
                f"{path} has {len(kinds)} categories with names of keypoints ({named}); it must "
                "have one"
            )
        return None
    seen = set()
    for annotation in file.annotations:
        if annotation.keypoints and annotation.category_id == kinds[0].id:
            if annotation.image_id in seen:
                name = next(i.file_name for i in file.images if i.id == annotation.image_id)
                raise LabelError(
                    f"{path} has two annotations of {name!r} with keypoints; labels are of one "
                    "object"
                )
            seen.add(annotation.image_id)
    return kinds[0]


def _skeleton(path: Path, category: Category) -> tuple[tuple[int, int], ...]:
    count = len(category.keypoints or ())
    skeleton = tuple((a - 1, b - 1) for a, b in category.skeleton or ())
    if not all(0 <= end < count for edge in skeleton for end in edge):
        raise LabelError(f"{path}: the skeleton names a keypoint outside 1 to {count}")
    return skeleton


def _points(
    origin: str, annotations: list[Annotation], category: Category
) -> dict[str, Point] | None:
    """Keypoints of an image. COCO puts pixel centers at whole numbers, labels here at +0.5; its
    v = 0 (not labeled) becomes not visible, its v = 1 and 2 visible."""
    names = category.keypoints or []
    for annotation in annotations:
        row = annotation.keypoints
        if not row or annotation.category_id != category.id:
            continue
        if len(row) != 3 * len(names) or not np.isfinite(row).all():
            raise LabelError(
                f"{origin}: the keypoints are {len(row)} numbers; {len(names)} keypoints need "
                f"{3 * len(names)} that are finite"
            )
        return {
            name: (row[3 * i] + 0.5, row[3 * i + 1] + 0.5, row[3 * i + 2] > 0)
            for i, name in enumerate(names)
        }
    return None
