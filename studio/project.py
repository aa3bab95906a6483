"""A project: the folder that `training sample` or `invert` writes, and labels from the browser.

    DIR/images, latents.npy, index.json   the image set
    DIR/masks/STEM.png, classes.toml      class ids; unlabeled and ignored pixels have ignore_id
    DIR/keypoints.json                    COCO
    DIR/studio/                           what can be made again: weights, proposals, the token

A label file is replaced whole, so that a killed process leaves the old one or the new one. A mask
without a labeled pixel is no file: its image is unlabeled.
"""

import hashlib
import io
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.files import replace_file
from checkpoints import ClassCard, Classes, classes_from_file, write_classes, write_text
from studio.errors import Conflict, NotFound, Outdated, StudioError
from studio.outside import refuse_other_masks, state_of_file, states_of_masks
from training.errors import LabelError, TrainingError
from training.images.image_set import ImageSet, image_set_from_folder
from training.labels.label_folder import (
    CLASSES,
    KEYPOINTS,
    MASKS,
    LabelFolder,
    label_folder,
    pictures_from_folder,
    text_of_keypoints,
)
from training.labels.png import Palette, mask_from_file
from training.labels.reading import ignore_id_of

NO_MASK = "none"  # tag of an image without a mask
MAX_CLASSES = 64
MAX_NAME = 80  # characters
MAX_KEYPOINTS = 256
WORK = "studio"


class Project:
    """Images and labels of a folder, whose label files it alone writes. It is thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainingError, CheckpointError."""
        self.folder = folder
        self.lock = threading.RLock()
        self.images = image_set_from_folder(folder)
        refuse_other_masks(folder)
        self._labels = self._read()
        self._classes_in: dict[str, frozenset[int]] = {}  # by stem of a mask
        self._seen = states_of_masks(folder, self._labels.masks)
        for stem in self._labels.masks:
            self._note(stem, self.mask(stem)[0])

    @property
    def work(self) -> Path:
        """The folder of what can be made again; made when first asked for."""
        folder = self.folder / WORK
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of images and masks, pixels."""
        return self.images.crop.height, self.images.crop.width

    @property
    def classes(self) -> list[ClassCard]:
        """Names and colors by class id; empty before the first is named."""
        known = self._labels.classes
        return [] if known is None else list(known.cards)

    @property
    def ignore_id(self) -> int:
        """Mask value of unlabeled and of ignored pixels."""
        return self._labels.ignore_id

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Names of the keypoints that every image may have."""
        return self._labels.keypoint_names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of positions in the names."""
        return self._labels.skeleton

    @property
    def label_files(self) -> LabelFolder:
        """The labels as `training labels` reads them."""
        return self._labels

    def row(self, stem: str) -> int:
        """Row of an image in the index. Raises NotFound; no other name reaches the disk."""
        try:
            return self.images.stems.index(stem)
        except ValueError:
            raise NotFound(f"there is no image {stem[:MAX_NAME]!r} in this project") from None

    def image_file(self, stem: str) -> Path:
        """Path of the image's PNG. Raises NotFound."""
        return self.folder / "images" / self.images.index.images[self.row(stem)].file

    def mask(self, stem: str) -> tuple[NDArray[np.uint8], str]:
        """Class ids [H, W] and their tag; all ignore_id without a mask.

        Raises NotFound, and LabelError for a file that another program has made no mask of these
        classes.
        """
        with self.lock:
            self.row(stem)
            path = self._mask_file(stem)
            known = self._labels.classes
            if known is None or not path.exists():
                return np.full(self.size, self.ignore_id, np.uint8), NO_MASK
            sizes = self._labels.pictures.sizes[stem]
            mask = mask_from_file(path, Palette(Classes(known.cards, self.ignore_id)), sizes)
            if mask.shape != self.size:
                raise LabelError(
                    f"{path} has {mask.shape[1]}x{mask.shape[0]} pixels; the image has "
                    f"{self.size[1]}x{self.size[0]}"
                )
            return mask, tag_of_mask(mask)

    def take_in_masks(self) -> None:
        """Takes over the masks that other programs have added, changed or removed since; one that
        cannot be read is a label without classes, and named when it is opened."""
        with self.lock:
            if self._labels.classes is None:  # their meaning is not read yet
                return
            before, self._seen = self._seen, states_of_masks(self.folder, self.images.stems)
            masks = {stem: self.folder / MASKS / f"{stem}.png" for stem in self._seen}
            self._labels = replace(self._labels, masks=masks)
            for stem in before.keys() | self._seen.keys():
                if before.get(stem) != self._seen.get(stem):
                    try:
                        self._note(stem, self.mask(stem)[0])
                    except (TrainingError, NotFound):  # NotFound: its image was taken out
                        self._classes_in.pop(stem, None)

    def missing_classes(self) -> list[str]:
        """Names of the classes that no mask has."""
        found = frozenset[int]().union(*self._classes_in.values())
        return [card.name for i, card in enumerate(self.classes) if i not in found]

    def _note(self, stem: str, mask: NDArray[np.uint8]) -> None:
        self._classes_in[stem] = frozenset(np.unique(mask).tolist())

    def save_mask(self, stem: str, pixels: bytes, base: str) -> str:
        """Replaces the mask by class ids, H * W bytes, and returns the new tag.

        `base` is the tag of the mask that the ids were made from. The same ids once more are no
        fault, so that a request whose answer was lost may be repeated. Raises NotFound, Outdated,
        StudioError.
        """
        height, width = self.size
        if len(pixels) != height * width:
            raise StudioError(
                f"the mask has {len(pixels)} bytes; the image has {width}x{height} = "
                f"{height * width} pixels"
            )
        mask = np.frombuffer(pixels, np.uint8).reshape(height, width)
        with self.lock:
            self.row(stem)
            count = len(self.classes)
            wrong = mask[(mask >= count) & (mask != self.ignore_id)]
            if wrong.size:
                raise StudioError(
                    f"the mask has class id {wrong.max()}; there are {count} classes, and "
                    f"{self.ignore_id} marks ignored pixels"
                )
            _, found = self.mask(stem)
            labelled = bool((mask != self.ignore_id).any())
            tag = tag_of_mask(mask) if labelled else NO_MASK
            if found not in (base, tag):
                raise Outdated(
                    f"the mask of {stem} has changed on disk since this tab read it; load it, or "
                    "save yours over it"
                )
            if tag != found:
                self._refuse_other_classes()
                self._write_mask(stem, mask if labelled else None)
            return tag

    def _write_mask(self, stem: str, mask: NDArray[np.uint8] | None) -> None:
        path = self._mask_file(stem)
        masks = dict(self._labels.masks)
        if mask is None:
            path.unlink(missing_ok=True)
            masks.pop(stem, None)
            self._classes_in.pop(stem, None)
        else:
            known = self._labels.classes
            if known is not None and known.ignore_id is None:  # the file has to say it
                self.set_classes(known.cards)
            path.parent.mkdir(exist_ok=True)
            stream = io.BytesIO()
            Image.fromarray(mask).save(stream, "png")
            replace_file(path, stream.getvalue())
            masks[stem] = path
            self._note(stem, mask)
        self._labels = replace(self._labels, masks=masks)

    def set_classes(
        self, cards: Sequence[ClassCard], before: Sequence[ClassCard] | None = None
    ) -> None:
        """Renames, recolors or adds classes; a last one that no mask has may go.

        `before`: the classes that the list was made from; None: those of now. The same list once
        more is no fault. Raises StudioError, Conflict.
        """
        if not 1 <= len(cards) <= MAX_CLASSES:
            raise StudioError(f"{len(cards)} classes are given; give 1 to {MAX_CLASSES}")
        _check_names("class", [card.name for card in cards])
        with self.lock:
            self.take_in_masks()
            if before is not None and self.classes not in (list(before), list(cards)):
                raise Conflict(_changed_text("classes", [card.name for card in self.classes]))
            if len(cards) < len(self.classes):
                for stem in self._labels.masks:
                    mask, _ = self.mask(stem)
                    used = mask[mask != self.ignore_id]
                    if used.size and used.max() >= len(cards):
                        raise Conflict(
                            f"{self.classes[int(used.max())].name} is painted in {stem}; erase it "
                            "there before you remove the class"
                        )
            if self._labels.classes is not None and self.ignore_id < len(cards):
                raise Conflict(f"the masks mark ignored pixels by {self.ignore_id}; no class may")
            classes = Classes(list(cards), self.ignore_id)
            self._refuse_changed(CLASSES)
            write_classes(self.folder / CLASSES, classes)
            self._note_files()
            self._labels = replace(self._labels, classes=classes)

    def points(self, stem: str) -> NDArray[np.float32] | None:
        """Keypoints [K, 3]: x, y in pixels (centers at +0.5), visible 0 or 1; None without."""
        self.row(stem)
        return self._labels.points.get(stem)

    def save_points(self, stem: str, points: NDArray[np.float32] | None) -> None:
        """Replaces or removes the keypoints [K, 3] of an image. Raises NotFound, StudioError."""
        with self.lock:
            self.row(stem)
            all_points = dict(self._labels.points)
            if points is None:
                all_points.pop(stem, None)
            else:
                self._check_points(points)
                all_points[stem] = points
            self._write_points(self.keypoint_names, self.skeleton, all_points)

    def set_keypoints(
        self,
        names: Sequence[str],
        skeleton: Sequence[tuple[int, int]],
        before: tuple[Sequence[str], Sequence[tuple[int, int]]] | None = None,
    ) -> None:
        """Names the keypoints and joins them.

        Points keep their place in the list, so names may be added or changed, and removed while no
        image has points. `before`: names and skeleton that the list was made from, as of
        `set_classes`. Raises StudioError, Conflict.
        """
        _check_names("keypoint", names)
        if len(names) > MAX_KEYPOINTS:
            raise StudioError(f"{len(names)} keypoints are given; the limit is {MAX_KEYPOINTS}")
        for pair in skeleton:
            if not all(0 <= end < len(names) for end in pair) or pair[0] == pair[1]:
                raise StudioError(f"the skeleton joins {pair}; it takes two of {len(names)} points")
        with self.lock:
            known = list(self.keypoint_names), list(self.skeleton)
            made_from = before or known
            if known not in (
                (list(made_from[0]), list(made_from[1])),
                (list(names), list(skeleton)),
            ):
                raise Conflict(_changed_text("keypoints", self.keypoint_names))
            added = len(names) - len(self.keypoint_names)
            if added < 0 and self._labels.points:
                raise Conflict("some images have keypoints; remove those before a name")
            absent = np.zeros((max(0, added), 3), np.float32)
            grown = {s: np.concatenate([rows, absent]) for s, rows in self._labels.points.items()}
            self._write_points(tuple(names), tuple(skeleton), grown)

    def _check_points(self, points: NDArray[np.float32]) -> None:
        height, width = self.size
        if points.shape != (len(self.keypoint_names), 3):
            raise StudioError(
                f"{len(points)} keypoints are given; this project has {len(self.keypoint_names)}"
            )
        shown = points[points[:, 2] > 0]
        inside = (shown[:, :2] >= 0) & (shown[:, :2] <= [width, height])
        if not (np.isfinite(points).all() and inside.all() and np.isin(points[:, 2], (0, 1)).all()):
            raise StudioError(f"keypoints must lie within {width}x{height}, with visible 0 or 1")

    def _write_points(
        self,
        names: tuple[str, ...],
        skeleton: tuple[tuple[int, int], ...],
        points: dict[str, NDArray[np.float32]],
    ) -> None:
        self._refuse_changed(KEYPOINTS)
        path = self.folder / KEYPOINTS
        if names:
            write_text(path, text_of_keypoints(self._labels.pictures, points, names, skeleton))
        else:  # a file without names is none
            path.unlink(missing_ok=True)
        self._note_files()
        self._labels = replace(self._labels, keypoint_names=names, skeleton=skeleton, points=points)

    def replace_images(self, images: ImageSet) -> None:
        """Takes over a changed image set of the same folder; labels stay."""
        with self.lock:
            self.images = images
            self._labels = self._read()

    def has_label(self, stem: str) -> bool:
        """Whether an image has a mask or keypoints."""
        return stem in self._labels.masks or stem in self._labels.points

    def _refuse_changed(self, name: str) -> None:
        """Raises Outdated if another program, such as `training labels import`, has written the
        file since: what it wrote would be lost."""
        if state_of_file(self.folder / name) != self._files[name]:
            raise Outdated(
                f"{self.folder / name} has changed on disk since the studio has read it; start the "
                "studio again, which reads it"
            )

    def _refuse_other_classes(self) -> None:
        """Raises Conflict if another program has given the class ids other names since they were
        read: a mask would be saved as what nobody has painted."""
        known, path = self._files[CLASSES], self.folder / CLASSES
        if known is None or state_of_file(path) == known:
            return
        names = [card.name for card in classes_from_file(path).cards]
        if names != [card.name for card in self.classes]:
            raise Conflict(
                f"{path} has other classes than the studio has read; start the studio again, which "
                "reads them"
            )

    def _note_files(self) -> None:
        """Remembers the files whose whole content is in memory, as they are now."""
        self._files = {n: state_of_file(self.folder / n) for n in (CLASSES, KEYPOINTS)}

    def _read(self) -> LabelFolder:
        self._note_files()
        labels = label_folder(self.folder, pictures_from_folder(self.folder))
        path = self.folder / CLASSES
        if labels.classes is None and path.exists():  # classes before the first mask
            classes = classes_from_file(path)
            labels = replace(labels, classes=classes, ignore_id=ignore_id_of(classes))
        return labels

    def _mask_file(self, stem: str) -> Path:
        return self._labels.masks.get(stem, self.folder / MASKS / f"{stem}.png")


def opened_log(path: Path) -> BinaryIO:
    """A new log in place of the last one. A link there, in a project of somebody else, is not
    followed: the file that it names would be emptied. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb")


def tag_of_mask(mask: NDArray[np.uint8] | None) -> str:
    """What tells two masks apart: a digest of the class ids."""
    return NO_MASK if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()[:16]


def _changed_text(what: str, names: Sequence[str]) -> str:
    """Says that a list was made from an older one, and what the newer one is."""
    return (
        f"the {what} have changed since this list was opened, in another tab or by another "
        f"program; now they are: {', '.join(names) or 'none'}"
    )


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not (0 < len(name.strip()) <= MAX_NAME and name.isprintable()):
            raise StudioError(f"the {what} {name[:MAX_NAME]!r} must have 1 to {MAX_NAME} letters")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise StudioError(f"two {what}es are called {doubled[0]}" if what == "class" else
                          f"two {what}s are called {doubled[0]}")  # fmt: skip
