"""Masks and keypoints of COCO's JSON; smaller parts cover larger ones, crowds are ignored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes, classes_from_names
from training.errors import LabelError
from training.labels.polygons import counts_from_text, filled, mask_from_counts, painted
from training.labels.scaling import Extents


class Category(msgspec.Struct, frozen=True):
    """A class, or an object with keypoints."""

    id: int
    name: str
    keypoints: list[str] = []
    skeleton: list[tuple[int, int]] = []  # positions in keypoints, from 1


class CocoImage(msgspec.Struct, frozen=True):
    """An image that annotations refer to."""

    id: int
    file_name: str
    width: int
    height: int


class RunLengths(msgspec.Struct, frozen=True):
    """A mask as run lengths, by columns; a string when compressed."""

    counts: str | list[int]
    size: tuple[int, int]  # height and width


Segmentation = list[list[float]] | RunLengths


class Annotation(msgspec.Struct, frozen=True):
    """One object."""

    image_id: int
    category_id: int
    segmentation: Segmentation | None = None
    keypoints: list[float] | None = None  # x, y, v for each of the category's
    iscrowd: int = 0


class CocoFile(msgspec.Struct, frozen=True):
    """The fields that are read; COCO has more."""

    images: list[CocoImage]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True)
class Keypoints:
    """Keypoints by stem, and what they are."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]  # positions in names, from 0
    points: dict[str, NDArray[np.float32]]  # [K, 3]: x, y in pixels (centres +0.5), visible 0 or 1


def read_coco(path: Path) -> CocoFile:
    """Reads and checks what all uses of the file share. Raises LabelError."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=CocoFile)
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no COCO file: {' '.join(str(error).split())}") from error
    images, categories = {i.id for i in file.images}, {c.id for c in file.categories}
    for annotation in file.annotations:
        if annotation.image_id not in images or annotation.category_id not in categories:
            raise LabelError(
                f"{path} has an annotation of image {annotation.image_id} and category "
                f"{annotation.category_id}, which the file does not list"
            )
    return file


def classes_of_coco(file: CocoFile) -> Classes:
    """The background and the categories, by id."""
    names = [c.name for c in sorted(file.categories, key=lambda c: c.id)]
    return classes_from_names(["background", *(n for n in names if n != "background")])


def masks_from_coco(
    path: Path,
    file: CocoFile,
    extents: Mapping[str, Extents],
    classes: Classes,
    ignore_id: int,
) -> dict[str, NDArray[np.uint8]]:
    """uint8 [H, W] by stem, of every image of the set that the file lists. Raises LabelError."""
    known = {card.name: i for i, card in enumerate(classes.cards)}
    ids = {}
    for category in file.categories:
        if category.name not in known:
            raise LabelError(
                f"{path} has the category {category.name!r}; the classes are {', '.join(known)}"
            )
        ids[category.id] = known[category.name]
    masks = {}
    for stem, image in _images(path, file, extents).items():
        parts = [
            (
                ignore_id if annotation.iscrowd else ids[annotation.category_id],
                _region(path, annotation.segmentation, image, extents[stem]),
            )
            for annotation in file.annotations
            if annotation.image_id == image.id and annotation.segmentation is not None
        ]
        parts.sort(key=lambda part: -int(part[1].sum()))
        masks[stem] = painted(parts, extents[stem])
    return masks


def keypoints_from_coco(path: Path, file: CocoFile, extents: Mapping[str, Extents]) -> Keypoints:
    """Keypoints of the file's only category that has any. Raises LabelError.

    COCO counts pixel centres at whole numbers, we at +0.5; its v = 0 is a point that is not there.
    """
    with_points = [c for c in file.categories if c.keypoints]
    if len(with_points) != 1:
        raise LabelError(f"{path} has {len(with_points)} categories with keypoints; it must be one")
    category = with_points[0]
    count = len(category.keypoints)
    skeleton = tuple((a - 1, b - 1) for a, b in category.skeleton)
    if not all(0 <= end < count for edge in skeleton for end in edge):
        raise LabelError(f"{path}: the skeleton names a keypoint outside 1 to {count}")
    points: dict[str, NDArray[np.float32]] = {}
    stems = {image.id: stem for stem, image in _images(path, file, extents).items()}
    sizes = {image.id: (image.width, image.height) for image in file.images}
    for annotation in file.annotations:
        stem = stems.get(annotation.image_id)
        if stem is None or annotation.keypoints is None or annotation.category_id != category.id:
            continue
        if stem in points:
            raise LabelError(f"{path} has two annotations of {stem}; labels are of one object")
        row = np.array(annotation.keypoints, dtype=np.float32)
        if row.size != 3 * count or not np.isfinite(row).all():
            raise LabelError(
                f"{path}: the keypoints of {stem} are {row.size} numbers; {count} keypoints need "
                f"{3 * count} that are finite"
            )
        row = row.reshape(count, 3)
        row[:, :2] = (row[:, :2] + 0.5) * extents[stem].scale(path, *sizes[annotation.image_id])
        row[:, 2] = row[:, 2] > 0
        points[stem] = row
    if not points:
        raise LabelError(f"{path} has keypoints of no image of the set")
    return Keypoints(tuple(category.keypoints), skeleton, points)


def _images(path: Path, file: CocoFile, extents: Mapping[str, Extents]) -> dict[str, CocoImage]:
    """The file's images that are in the set, by stem."""
    found: dict[str, CocoImage] = {}
    for image in file.images:
        stem = Path(image.file_name).stem
        if stem in found:
            raise LabelError(f"{path} lists two images called {stem}")
        if stem in extents:
            found[stem] = image
            extents[stem].scale(path, image.width, image.height)
    if not found:
        some = ", ".join(sorted(extents)[:2])
        raise LabelError(f"{path} lists no image of the set ({some} ...)")
    return found


def _region(
    path: Path,
    segmentation: list[list[float]] | RunLengths | None,
    image: CocoImage,
    extents: Extents,
) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        return filled(path, segmentation, (image.width, image.height), extents)
    assert segmentation is not None  # the caller took those that are there
    height, width = segmentation.size
    if (width, height) != (image.width, image.height):
        raise LabelError(f"{path} has a mask of {width}x{height} in {image.file_name}")
    counts = segmentation.counts
    if isinstance(counts, str):
        counts = counts_from_text(counts)
    return extents.resized(path, mask_from_counts(path, counts, (width, height)))
