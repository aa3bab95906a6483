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

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.files import replace_file
from checkpoints import ClassCard, Classes, classes_from_file, write_classes, write_text
from studio.errors import Conflict, NotFound, Outdated, StudioError
from studio.names import (
    MAX_NAME,
    Known,
    Meanings,
    changed_text,
    check_names,
    keys_of_meanings,
    mean_the_same,
    meanings_of_names,
    store_meanings,
    stored_meanings,
)
from studio.outside import OLD, refuse_other_masks, state_of_file, states_of_masks
from studio.received import check_ids, check_skeleton, mask_from_bytes, points_of_now
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
        self._known = stored_meanings(folder / WORK)
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
    def class_keys(self) -> list[list[str]]:
        """By class id: the keys of the names that the class has had, that of now last."""
        return keys_of_meanings(self._known.classes)

    def has_classes(self, names: Sequence[str]) -> bool:
        """Whether class ids mean what they meant in a list of names, and there are as many."""
        return mean_the_same(self._known.classes, names)

    def has_keypoints(self, names: Sequence[str]) -> bool:
        """The same of the places of keypoints."""
        return mean_the_same(self._known.keypoints, names)

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

    def mask_by_classes(self, stem: str) -> tuple[NDArray[np.uint8], str, list[str]]:
        """The same, by the classes as they are on disk, and their keys, by id."""
        with self.lock:
            self._take_in_names()
            return *self.mask(stem), [names[-1] for names in self.class_keys]

    def take_in(self) -> None:
        """Takes over the labels that other programs have added, changed or removed since; a mask
        that cannot be read is a label without classes, and named when it is opened. Raises
        TrainingError, CheckpointError for lists of names that cannot be read."""
        with self.lock:
            self._take_in_names()
            if self._labels.classes is None:  # what masks mean is not known yet
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

    def _take_in_names(self) -> None:
        """Reads the labels anew if classes.toml or keypoints.json is another file by now."""
        if self._files != self._states():
            self._labels = self._read()
            self._seen = dict.fromkeys(self._seen, OLD)  # so that masks are read again

    def missing_classes(self) -> list[str]:
        """Names of the classes that no mask has."""
        found = frozenset[int]().union(*self._classes_in.values())
        return [card.name for i, card in enumerate(self.classes) if i not in found]

    def _note(self, stem: str, mask: NDArray[np.uint8]) -> None:
        self._classes_in[stem] = frozenset(np.unique(mask).tolist())

    def save_mask(
        self, stem: str, pixels: bytes, base: str, made_by: Sequence[str] | None = None
    ) -> str:
        """Replaces the mask by class ids, H * W bytes, and returns the new tag.

        `base` is the tag of the mask that the ids were made from, and `made_by` the keys of the
        classes, by id; None: of those of now. The same ids once more are no fault, so that a
        request whose answer was lost may be repeated. Raises NotFound, Outdated, StudioError, and
        Conflict for ids that mean another class by now.
        """
        mask = mask_from_bytes(pixels, self.size)
        with self.lock:
            self._take_in_names()
            self.row(stem)
            check_ids(mask, self.ignore_id, made_by, self._known.classes)
            _, found = self.mask(stem)
            labelled = bool((mask != self.ignore_id).any())
            tag = tag_of_mask(mask) if labelled else NO_MASK
            if found not in (base, tag):
                raise Outdated(
                    f"the mask of {stem} has changed on disk since this tab read it; load it, or "
                    "save yours over it"
                )
            if tag != found:
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
        self, cards: Sequence[ClassCard], before: Sequence[ClassCard] | None = None,
        keys: Sequence[str | None] | None = None,
    ) -> None:  # fmt: skip
        """Renames, recolors or adds classes; one that no mask has may go, or another may take its
        id.

        `before`: the classes that the list was made from; None: those of now. `keys`: which of them
        each class is, None for a new one; without, a class is the one that has its id. The same
        list once more is no fault. Raises StudioError, Conflict.
        """
        names = [card.name for card in cards]
        if not 1 <= len(cards) <= MAX_CLASSES:
            raise StudioError(f"{len(cards)} classes are given; give 1 to {MAX_CLASSES}")
        check_names("class", names)
        with self.lock:
            self.take_in()
            keys_of_now = self.class_keys
            if before is not None and self.classes == list(cards):
                return
            if before is not None and self.classes != list(before):
                now = [card.name for card in self.classes]
                raise Conflict(changed_text("classes", now, "list was opened"))
            stays = [
                i < len(keys_of_now) and (keys is None or keys[i] in keys_of_now[i])
                for i in range(len(cards))
            ]
            gone = [i for i in range(len(keys_of_now)) if i >= len(cards) or not stays[i]]
            self._refuse_painted(gone)
            if self._labels.classes is not None and self.ignore_id < len(cards):
                raise Conflict(f"the masks mark ignored pixels by {self.ignore_id}; no class may")
            classes = Classes(list(cards), self.ignore_id)
            kept = [
                had if stays[i] else [] for i, had in enumerate(self._known.classes[: len(cards)])
            ]
            known = self._stored(classes=meanings_of_names(kept, names, stays))
            write_classes(self.folder / CLASSES, classes)
            self._known = known
            self._files = self._states()
            self._labels = replace(self._labels, classes=classes)

    def _refuse_painted(self, ids: Sequence[int]) -> None:
        """Raises Conflict if a mask has a pixel of a class that is to go, and LabelError if it
        cannot be read."""
        for stem in self._labels.masks if ids else ():
            if stem not in self._classes_in:
                self._note(stem, self.mask(stem)[0])
            painted = self._classes_in[stem].intersection(ids)
            if painted:
                raise Conflict(
                    f"{self.classes[max(painted)].name} is painted in {stem}; erase it there "
                    "before you remove the class"
                )

    def _stored(self, **lists: Meanings) -> Known:
        """What places mean with other `lists`, and keeps it for the next session: before the names
        are written, so that a killed process leaves no place with a meaning that it never had."""
        known = msgspec.structs.replace(self._known, **lists)
        store_meanings(self.work, known)
        return known

    def points(self, stem: str) -> NDArray[np.float32] | None:
        """Keypoints [K, 3]: x, y in pixels (centers at +0.5), visible 0 or 1; None without."""
        self.row(stem)
        return self._labels.points.get(stem)

    def save_points(
        self, stem: str, points: NDArray[np.float32] | None, names: Sequence[str] | None = None
    ) -> None:
        """Replaces or removes the keypoints [K, 3] of an image. `names`: the list that they were
        made by; None: that of now. Raises NotFound, StudioError, and Conflict for a visible point
        that means another one by now."""
        with self.lock:
            self._take_in_names()
            self.row(stem)
            all_points = dict(self._labels.points)
            if points is None:
                all_points.pop(stem, None)
            else:
                names = self.keypoint_names if names is None else names
                all_points[stem] = points_of_now(points, names, self._known.keypoints, self.size)
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
        check_names("keypoint", names)
        if len(names) > MAX_KEYPOINTS:
            raise StudioError(f"{len(names)} keypoints are given; the limit is {MAX_KEYPOINTS}")
        check_skeleton(skeleton, len(names))
        with self.lock:
            self._take_in_names()
            known = list(self.keypoint_names), list(self.skeleton)
            made_from = before or known
            if known not in (
                (list(made_from[0]), list(made_from[1])),
                (list(names), list(skeleton)),
            ):
                raise Conflict(changed_text("keypoints", self.keypoint_names, "list was opened"))
            added = len(names) - len(self.keypoint_names)
            if added < 0 and self._labels.points:
                raise Conflict("some images have keypoints; remove those before a name")
            absent = np.zeros((max(0, added), 3), np.float32)
            grown = {s: np.concatenate([rows, absent]) for s, rows in self._labels.points.items()}
            # Of places without a point nobody can say whether they were renamed.
            renamed = [bool(self._labels.points)] * len(names)
            meant = meanings_of_names(self._known.keypoints, names, renamed)
            stored = self._stored(keypoints=meant)
            self._write_points(tuple(names), tuple(skeleton), grown)
            self._known = stored

    def _write_points(
        self,
        names: tuple[str, ...],
        skeleton: tuple[tuple[int, int], ...],
        points: dict[str, NDArray[np.float32]],
    ) -> None:
        path = self.folder / KEYPOINTS
        if names:
            write_text(path, text_of_keypoints(self._labels.pictures, points, names, skeleton))
        else:  # a file without names is none
            path.unlink(missing_ok=True)
        self._files = self._states()
        self._labels = replace(self._labels, keypoint_names=names, skeleton=skeleton, points=points)

    def replace_images(self, images: ImageSet) -> None:
        """Takes over a changed image set of the same folder; labels stay."""
        with self.lock:
            self.images = images
            self._labels = self._read()

    def has_label(self, stem: str) -> bool:
        """Whether an image has a mask or keypoints."""
        return stem in self._labels.masks or stem in self._labels.points

    def _states(self) -> dict[str, object]:
        """Of the files whose whole content is in memory, as they are now."""
        return {name: state_of_file(self.folder / name) for name in (CLASSES, KEYPOINTS)}

    def _read(self) -> LabelFolder:
        """The labels on disk; places whose names have changed mean something else from now on."""
        states = self._states()
        labels = label_folder(self.folder, pictures_from_folder(self.folder))
        path = self.folder / CLASSES
        if labels.classes is None and path.exists():  # classes before the first mask
            classes = classes_from_file(path)
            labels = replace(labels, classes=classes, ignore_id=ignore_id_of(classes))
        names = [] if labels.classes is None else [card.name for card in labels.classes.cards]
        self._known = Known(
            meanings_of_names(self._known.classes, names),
            meanings_of_names(self._known.keypoints, labels.keypoint_names),
        )
        self._files = states
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
