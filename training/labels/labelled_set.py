"""An image set and its label files -> label arrays, one row per labeled image.

Label files lie in the set's folder: masks/ (PNG), labelme/ or masks.json (COCO) with classes.toml,
keypoints.json (COCO) or points in labelme/, depth/; or at paths that the user gives. A label and
its image have the same stem.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes, classes_from_file
from training.errors import LabelError
from training.images.image_set import ImageSet
from training.label_crop import LabelCrop
from training.labels.coco import (
    KeypointLabels,
    classes_from_coco,
    keypoints_from_coco,
    masks_from_coco,
    read_coco,
)
from training.labels.depth import depth_file_of_folder, depths_from_folder
from training.labels.labelme import (
    classes_from_labelme,
    keypoints_from_labelme,
    masks_from_labelme,
    read_labelme,
)
from training.labels.png import masks_from_png
from training.labels.scaling import Label, LabelSizes, sizes_by_stem

DEFAULT_IGNORE_ID = 255  # mask value of unlabeled pixels, unless classes.toml gives another


@dataclass(frozen=True)
class LabelPaths:
    """Paths of label files; None: no labels of this kind."""

    classes: Path | None = None  # classes.toml
    masks: Path | None = None  # a folder of PNG or LabelMe files, or a COCO file
    keypoints: Path | None = None  # a COCO file, or a folder of LabelMe files
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


def label_paths(folder: Path, given: LabelPaths) -> LabelPaths:
    """Paths given by the user, and for the other kinds what lies in the folder.

    Raises LabelError when the folder has masks in several formats.
    """
    masks = [
        path for name in ("masks", "masks.json", "labelme") if (path := folder / name).exists()
    ]
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


def labelled_set(images: ImageSet, given: LabelPaths | None = None) -> LabelledSet:
    """Reads and checks the labels; images without labels are left out.

    Raises LabelError naming the file and its fault.
    """
    paths = label_paths(images.folder, given or LabelPaths())
    sizes = sizes_by_stem(images)
    classes, ignore_id, masks = None, DEFAULT_IGNORE_ID, None
    unit, depth = "", None
    if paths.masks is not None:
        classes, ignore_id, masks = _masks(paths.masks, paths.classes, sizes)
        if not masks:  # LabelMe files of points alone
            classes = masks = None
    keypoints = _keypoints(paths, given is not None and given.keypoints is not None, sizes)
    if paths.depth is not None:
        depth_file = depth_file_of_folder(paths.depth)
        unit, depth = depth_file.unit, depths_from_folder(paths.depth, sizes, depth_file)
    labelled = {
        *(masks or {}),
        *(keypoints.points if keypoints is not None else {}),
        *(depth or {}),
    }
    if not labelled:
        raise LabelError(
            f"{images.folder} has no labels: masks/, masks.json, labelme/, keypoints.json or depth/"
        )
    rows = np.array([i for i, stem in enumerate(images.stems) if stem in labelled])
    stems = tuple(images.stems[i] for i in rows)
    return LabelledSet(
        crop=images.crop,
        stems=stems,
        ws=images.ws[rows],
        classes=classes,
        masks=None if masks is None else _stacked(masks, stems, images.crop, np.uint8(ignore_id)),
        ignore_id=ignore_id,
        keypoints=None if keypoints is None else _stacked_points(keypoints, stems),
        keypoint_names=() if keypoints is None else keypoints.names,
        skeleton=() if keypoints is None else keypoints.skeleton,
        depth=None if depth is None else _stacked(depth, stems, images.crop, np.float32("nan")),
        depth_unit=unit,
        pixels_sha256=tuple(images.index.images[i].pixels_sha256 for i in rows),
    )


def _masks(
    path: Path, classes_path: Path | None, sizes: dict[str, LabelSizes]
) -> tuple[Classes, int, dict[str, NDArray[np.uint8]]]:
    classes = None if classes_path is None else classes_from_file(classes_path)
    if _is_labelme(path):
        labelme = read_labelme(path, sizes)
        classes = classes or classes_from_labelme(labelme)
        ignore_id = _ignore_id(classes)
        return classes, ignore_id, masks_from_labelme(labelme, sizes, classes, ignore_id)
    if not path.is_dir() and path.suffix == ".json":
        coco = read_coco(path)
        classes = classes or classes_from_coco(coco)
        ignore_id = _ignore_id(classes)
        return classes, ignore_id, masks_from_coco(path, coco, sizes, classes, ignore_id)
    if classes is None:
        raise LabelError(
            f"{path} holds class ids without names; write classes.toml with a [[classes]] table of "
            "name and color for each id"
        )
    return classes, _ignore_id(classes), masks_from_png(path, sizes, classes)


def _keypoints(
    paths: LabelPaths, chosen: bool, sizes: dict[str, LabelSizes]
) -> KeypointLabels | None:
    """From the keypoints' own path, else from the points in the LabelMe files of the masks.

    Raises LabelError if both have some and the user chose neither.
    """
    own, folder = paths.keypoints, paths.masks
    if own is not None and chosen and own.is_dir():
        own, folder = None, own
    if folder is None or not _is_labelme(folder) or (own is not None and chosen):
        drawn = None
    else:
        drawn = keypoints_from_labelme(read_labelme(folder, sizes), sizes)
    if own is None:
        if drawn is None and chosen:
            raise LabelError(f"{folder} has no LabelMe files with shapes of type point")
        return drawn
    if drawn is not None:
        raise LabelError(f"{own} and {folder} have keypoints; choose one with --keypoints")
    return keypoints_from_coco(own, read_coco(own), sizes)


def _is_labelme(path: Path) -> bool:
    return path.is_dir() and any(file.suffix == ".json" for file in path.iterdir())


def _ignore_id(classes: Classes) -> int:
    if classes.ignore_id is not None:
        return classes.ignore_id
    if len(classes.cards) > DEFAULT_IGNORE_ID:
        raise LabelError("256 classes leave no mask value for unlabeled pixels; use at most 255")
    return DEFAULT_IGNORE_ID


def _stacked(
    labels: dict[str, NDArray[Label]], stems: tuple[str, ...], crop: LabelCrop, missing: Label
) -> NDArray[Label]:
    nothing = np.full((crop.height, crop.width), missing)
    return np.stack([labels.get(stem, nothing) for stem in stems])


def _stacked_points(keypoints: KeypointLabels, stems: tuple[str, ...]) -> NDArray[np.float32]:
    nothing = np.full((len(keypoints.names), 3), np.nan, np.float32)
    return np.stack([keypoints.points.get(stem, nothing) for stem in stems])


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
