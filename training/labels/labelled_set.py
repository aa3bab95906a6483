"""An image set and its label files -> label arrays, one row per labeled image.

Label files lie in the set's folder: masks/ (PNG), labelme/ or masks.json (COCO) with classes.toml,
keypoints.json (COCO), depth/; or at paths that the user gives. A label and its image have the same
stem.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes, classes_from_file
from training.errors import LabelError
from training.images.image_set import IMAGES, ImageSet
from training.label_crop import LabelCrop
from training.labels.annotations import ReadingRules, Source
from training.labels.coco import source_from_coco
from training.labels.depth import depth_file_of_folder, depths_from_folder
from training.labels.labelme import source_from_labelme
from training.labels.png import SUFFIXES, Palette, files_of_folder, source_from_png
from training.labels.reading import DEFAULT_IGNORE_ID, reading_from_source
from training.labels.scaling import Label, sizes_by_stem
from training.labels.table import LabelCounts


@dataclass(frozen=True)
class LabelPaths:
    """Paths of label files; None: no labels of this kind."""

    classes: Path | None = None  # classes.toml
    masks: Path | None = None  # a folder of PNG or LabelMe files, or a COCO file
    keypoints: Path | None = None  # a COCO file, or a folder of LabelMe files with points
    depth: Path | None = None  # a folder of PNG or .npy


@dataclass(frozen=True)
class LabelledSet:
    """Labels of n images and the latents that generate the images."""

    crop: LabelCrop
    stems: tuple[str, ...]
    ws: NDArray[np.float32]  # [n, num_ws, w_dim]
    classes: Classes | None = None
    masks: NDArray[np.uint8] | None = None  # [n, H, W], class ids
    ignore_id: int = DEFAULT_IGNORE_ID  # mask value of unlabeled pixels
    keypoints: NDArray[np.float32] | None = None  # [n, K, 3]: x, y in pixels (centers at +0.5),
    # visible 0 or 1; NaN for images without keypoint labels
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of positions in keypoint_names
    depth: NDArray[np.float32] | None = None  # [n, H, W]; NaN where unknown
    depth_unit: str = ""
    pixels_sha256: tuple[str, ...] = ()  # of each image, as in the index; empty: unknown

    def __len__(self) -> int:
        return len(self.ws)

    def rows(self, chosen: NDArray[np.int64]) -> "LabelledSet":
        """The chosen images, in this order."""
        return replace(
            self,
            stems=tuple(self.stems[i] for i in chosen),
            ws=self.ws[chosen],
            masks=None if self.masks is None else self.masks[chosen],
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
            depth=None if self.depth is None else self.depth[chosen],
            pixels_sha256=tuple(self.pixels_sha256[i] for i in chosen if self.pixels_sha256),
        )


def without_small_regions(
    labels: LabelledSet, least_pixels: int
) -> tuple[LabelledSet, dict[int, tuple[str, ...]]]:
    """The labels with background in place of each class that has fewer pixels in an image.

    Also returns the images that this changes, by class. DatasetGAN's and HandsOff's code clean
    their training labels so.
    """
    if labels.masks is None or labels.classes is None:
        return labels, {}
    masks, changed = labels.masks.copy(), dict[int, tuple[str, ...]]()
    for class_id in range(1, len(labels.classes.cards)):
        region = labels.masks == class_id
        small = region & (region.sum(axis=(1, 2), keepdims=True) < least_pixels)
        masks[small] = 0
        rows = np.flatnonzero(small.any(axis=(1, 2)))
        if len(rows):
            changed[class_id] = tuple(labels.stems[row] for row in rows)
    return replace(labels, masks=masks), changed


def label_paths(folder: Path, given: LabelPaths) -> LabelPaths:
    """Paths given by the user, and for the other kinds what lies in the folder.

    LabelMe writes its files beside the images, so those count, too. Raises LabelError when the
    folder has masks in several formats.
    """
    masks = [
        path for name in ("masks", "masks.json", "labelme") if (path := folder / name).exists()
    ]
    if any((folder / IMAGES).glob("*.json")):
        masks.append(folder / IMAGES)
    if given.masks is None and len(masks) > 1:
        raise LabelError(
            f"{folder} has {' and '.join(path.name for path in masks)}; choose one with --masks"
        )
    return LabelPaths(
        classes=given.classes or _existing(folder / "classes.toml"),
        masks=given.masks or (masks[0] if masks else None),
        keypoints=given.keypoints or _existing(folder / "keypoints.json"),
        depth=given.depth or _existing(folder / "depth"),
    )


def labelled_set(
    images: ImageSet, given: LabelPaths | None = None, rules: ReadingRules | None = None
) -> LabelledSet:
    """Reads and checks the labels; images without labels are left out.

    Raises LabelError naming the file and its fault.
    """
    return labels_and_counts(images, given, rules)[0]


def labels_and_counts(
    images: ImageSet, given: LabelPaths | None = None, rules: ReadingRules | None = None
) -> tuple[LabelledSet, LabelCounts, tuple[str, ...]]:
    """Reads labels as `labelled_set`, counts them, and notes what was left out or looks wrong."""
    paths = label_paths(images.folder, given or LabelPaths())
    rules = rules or ReadingRules()
    sizes = sizes_by_stem(images)
    classes = None if paths.classes is None else classes_from_file(paths.classes)
    masks: dict[str, NDArray[np.uint8]] = {}
    points: dict[str, NDArray[np.float32]] = {}
    regions = keypoints = None
    notes: list[str] = []
    unit, depth = "", dict[str, NDArray[np.float32]]()
    if paths.masks is not None:
        source = source_from_path(paths.masks, classes, rules)
        regions = reading_from_source(source, sizes, classes, rules)
        keypoints = regions if regions.keypoint_names else None
        notes += regions.notes
    if paths.keypoints is not None:
        if keypoints is not None:
            notes.append(f"the keypoints of {paths.masks} are not read: {paths.keypoints} has them")
        source = _keypoint_source(paths.keypoints, rules)
        keypoints = reading_from_source(source, sizes, None, rules, regions is not None)
        notes += keypoints.notes
    for reading in {id(r): r for r in (regions, keypoints) if r is not None}.values():
        for image in reading.images():
            if reading is regions and image.mask is not None:
                masks[image.stem] = image.mask
            if reading is keypoints and image.points is not None:
                points[image.stem] = image.points
    if paths.depth is not None:
        depth_file = depth_file_of_folder(paths.depth)
        unit, depth = depth_file.unit, depths_from_folder(paths.depth, sizes, depth_file)
    if not (masks or points or depth):
        raise LabelError(
            f"{images.folder} has no labels: masks/, masks.json, labelme/, keypoints.json or "
            "depth/; `python -m training labels import` reads other tools' files"
        )
    rows = np.array([i for i, s in enumerate(images.stems) if s in masks | points | depth])
    stems = tuple(images.stems[i] for i in rows)
    ignore_id = DEFAULT_IGNORE_ID if regions is None else regions.ignore_id
    names = () if keypoints is None else keypoints.keypoint_names
    labels = LabelledSet(
        crop=images.crop,
        stems=stems,
        ws=images.ws[rows],
        classes=regions.classes if masks and regions is not None else None,
        masks=_stacked(masks, stems, images.crop, np.uint8(ignore_id)) if masks else None,
        ignore_id=ignore_id,
        keypoints=_stacked_points(points, stems, len(names)) if points else None,
        keypoint_names=names,
        skeleton=() if keypoints is None else keypoints.skeleton,
        depth=_stacked(depth, stems, images.crop, np.float32("nan")) if depth else None,
        depth_unit=unit,
        pixels_sha256=tuple(images.index.images[i].pixels_sha256 for i in rows),
    )
    counts = LabelCounts(labels.classes, ignore_id, names, depths=len(depth))
    for mask in masks.values():
        counts.add_mask(mask)
    for row in points.values():
        counts.add_points(row)
    return labels, counts, tuple(notes)


def source_from_path(path: Path, classes: Classes | None, rules: ReadingRules) -> Source:
    """Label files of a set: a COCO file, or a folder of LabelMe files or PNG. Raises LabelError."""
    if not path.exists():
        raise LabelError(f"{path} cannot be read (No such file or directory)")
    if not path.is_dir():
        if path.suffix != ".json":
            raise LabelError(
                f"{path} is no folder and no COCO file (.json); `python -m training labels import` "
                "reads other tools' files"
            )
        return source_from_coco(path, rules)
    if any(file.suffix == ".json" for file in path.iterdir()):
        return source_from_labelme(path)
    if not files_of_folder(path, SUFFIXES):
        raise LabelError(
            f"{path} has neither masks (PNG) nor LabelMe files; `python -m training labels import` "
            "reads other tools' files"
        )
    if classes is None:
        raise LabelError(
            f"{path} holds class ids without names; write classes.toml with a [[classes]] table of "
            "name and color for each id"
        )
    return source_from_png(path, Palette(classes))


def _keypoint_source(path: Path, rules: ReadingRules) -> Source:
    """A COCO file, or a folder of LabelMe files with points. Raises LabelError."""
    return (
        source_from_labelme(path) if path.is_dir() else source_from_coco(path, rules, "keypoints")
    )


def sources_of_set(paths: LabelPaths, classes: Classes | None, rules: ReadingRules) -> list[Source]:
    """Readers of masks and of keypoints. Raises LabelError if there is neither."""
    sources = []
    if paths.masks is not None:
        sources.append(source_from_path(paths.masks, classes, rules))
    if paths.keypoints is not None:
        sources.append(_keypoint_source(paths.keypoints, rules))
    if not sources:
        raise LabelError("there are neither masks nor keypoints to check")
    return sources


def _stacked(
    labels: dict[str, NDArray[Label]], stems: tuple[str, ...], crop: LabelCrop, missing: Label
) -> NDArray[Label]:
    nothing = np.full((crop.height, crop.width), missing)
    return np.stack([labels.get(stem, nothing) for stem in stems])


def _stacked_points(
    points: dict[str, NDArray[np.float32]], stems: tuple[str, ...], count: int
) -> NDArray[np.float32]:
    nothing = np.full((count, 3), np.nan, np.float32)
    return np.stack([points.get(stem, nothing) for stem in stems])


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
