"""Masks and keypoints from a COCO JSON file.

Smaller regions cover larger ones. Crowd annotations become ignored pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes, classes_from_names
from training.errors import LabelError
from training.labels.polygons import (
    counts_from_text,
    mask_from_counts,
    mask_from_parts,
    mask_from_polygons,
)
from training.labels.scaling import LabelSizes


class Category(msgspec.Struct, frozen=True):
    """A class of masks, or a kind of object with keypoints."""

    id: int
    name: str
    keypoints: list[str] = []
    skeleton: list[tuple[int, int]] = []  # pairs of keypoints, counted from 1


class CocoImage(msgspec.Struct, frozen=True):
    """An image that annotations refer to by its id."""

    id: int
    file_name: str
    width: int
    height: int


class RunLengths(msgspec.Struct, frozen=True):
    """A mask as run lengths in column order; a string if compressed."""

    counts: str | list[int]
    size: tuple[int, int]  # (height, width)


Segmentation = list[list[float]] | RunLengths


class Annotation(msgspec.Struct, frozen=True):
    """Mask, keypoints, or both, of one object in an image."""

    image_id: int
    category_id: int
    segmentation: Segmentation | None = None
    keypoints: list[float] | None = None  # x, y, v of each keypoint of the category
    iscrowd: int = 0


class CocoFile(msgspec.Struct, frozen=True):
    """The whole file; fields that are not read are left out."""

    images: list[CocoImage]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True)
class KeypointLabels:
    """Keypoints of one object per image, by stem."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]  # pairs of keypoints, counted from 0
    points: dict[str, NDArray[np.float32]]  # [K, 3]: x, y in pixels (centers +0.5), visible 0 or 1


def read_coco(path: Path) -> CocoFile:
    """Reads the file and checks that annotations refer to listed ids. Raises LabelError."""
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
                f"{annotation.category_id}, which it does not list"
            )
    return file


def classes_from_coco(file: CocoFile) -> Classes:
    """Class 0 "background", then the categories in the order of their ids."""
    names = [c.name for c in sorted(file.categories, key=lambda c: c.id)]
    return classes_from_names(["background", *(n for n in names if n != "background")])


def masks_from_coco(
    path: Path,
    file: CocoFile,
    sizes: Mapping[str, LabelSizes],
    classes: Classes,
    ignore_id: int,
) -> dict[str, NDArray[np.uint8]]:
    """Class ids uint8 [H, W] by stem, for images that the file lists. Raises LabelError."""
    known = {card.name: i for i, card in enumerate(classes.cards)}
    ids = {}
    for category in file.categories:
        if category.name not in known:
            raise LabelError(
                f"{path} has the category {category.name!r}; the classes are {', '.join(known)}"
            )
        ids[category.id] = known[category.name]
    masks = {}
    for stem, image in _images_by_stem(path, file, sizes).items():
        parts = [
            (
                ignore_id if annotation.iscrowd else ids[annotation.category_id],
                _region_of_segmentation(path, annotation.segmentation, image, sizes[stem]),
            )
            for annotation in file.annotations
            if annotation.image_id == image.id and annotation.segmentation is not None
        ]
        parts.sort(key=lambda part: -int(part[1].sum()))  # the largest is painted first
        masks[stem] = mask_from_parts(parts, sizes[stem])
    return masks


def keypoints_from_coco(
    path: Path, file: CocoFile, sizes: Mapping[str, LabelSizes]
) -> KeypointLabels:
    """Keypoints of the only category that has keypoints. Raises LabelError.

    COCO puts pixel centers at whole numbers, labels here at +0.5. COCO's v = 0 (not labeled)
    becomes visible 0, its v = 1 and 2 visible 1.
    """
    with_points = [c for c in file.categories if c.keypoints]
    if len(with_points) != 1:
        raise LabelError(
            f"{path} has {len(with_points)} categories with keypoints; it must have one"
        )
    category = with_points[0]
    count = len(category.keypoints)
    skeleton = tuple((a - 1, b - 1) for a, b in category.skeleton)
    if not all(0 <= end < count for edge in skeleton for end in edge):
        raise LabelError(f"{path}: the skeleton names a keypoint outside 1 to {count}")
    points: dict[str, NDArray[np.float32]] = {}
    stems = {image.id: stem for stem, image in _images_by_stem(path, file, sizes).items()}
    file_sizes = {image.id: (image.height, image.width) for image in file.images}
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
        row[:, :2] = (row[:, :2] + 0.5) * sizes[stem].scale(path, file_sizes[annotation.image_id])
        row[:, 2] = row[:, 2] > 0
        points[stem] = row
    if not points:
        raise LabelError(f"{path} has keypoints, but none of the images of the set")
    return KeypointLabels(tuple(category.keypoints), skeleton, points)


def _images_by_stem(
    path: Path, file: CocoFile, sizes: Mapping[str, LabelSizes]
) -> dict[str, CocoImage]:
    """The images that both file and set have. Raises LabelError if a size does not fit."""
    found: dict[str, CocoImage] = {}
    for image in file.images:
        stem = Path(image.file_name).stem
        if stem in found:
            raise LabelError(f"{path} lists two images called {stem}")
        if stem in sizes:
            found[stem] = image
            sizes[stem].scale(path, (image.height, image.width))
    if not found:
        some = ", ".join(sorted(sizes)[:2])
        raise LabelError(f"{path} lists no image of the set ({some} ...)")
    return found


def _region_of_segmentation(
    path: Path,
    segmentation: Segmentation | None,
    image: CocoImage,
    sizes: LabelSizes,
) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        return mask_from_polygons(path, segmentation, (image.height, image.width), sizes)
    assert segmentation is not None  # the caller skips annotations without one
    height, width = segmentation.size
    if (height, width) != (image.height, image.width):
        raise LabelError(f"{path} has a mask of {width}x{height} in {image.file_name}")
    counts = segmentation.counts
    if isinstance(counts, str):
        counts = counts_from_text(counts)
    return sizes.resized(path, mask_from_counts(path, counts, (height, width)))
