"""What labels hold, counted before anything trains on them: images, pixels, shares of classes.

    16 of 20 images have labels: 16 with masks, 12 with keypoints

    class         pixels   share  images without
    background    812345   77.5%               0
    ear             1234    0.1%               3
    ignored            0    0.0%              16

A class without a pixel, or ignored pixels in more than half of the labels, is an error: most often
a name is spelled in two ways, or the tool wrote something else than was meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes
from labelmint.errors import printable_from_text
from training.errors import LabelError
from training.labels.annotations import is_background

MOST_IGNORED = 0.5  # share of all labeled pixels


@dataclass(frozen=True)
class Allowed:
    """What is no error; each has a switch."""

    empty_classes: bool = False  # --allow-empty-classes
    ignored: bool = False  # --allow-ignored


@dataclass
class LabelCounts:
    """Counts over the labels of a set, added image by image."""

    classes: Classes | None
    ignore_id: int
    keypoint_names: Sequence[str] = ()
    masks: int = 0  # images
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # with it
    visible: list[int] = field(default_factory=list)  # images in which each keypoint is visible
    pointed: int = 0  # images with keypoints
    depths: int = 0  # images with depth

    def add_mask(self, mask: NDArray[np.uint8]) -> None:
        """Adds the class ids of an image, [H, W]."""
        counts = np.bincount(mask.ravel(), minlength=256)
        self.masks += 1
        self.pixels += counts
        self.images += counts > 0

    def add_points(self, points: NDArray[np.float32]) -> None:
        """Adds the keypoints of an image, [K, 3]."""
        self.pointed += 1
        visible = (points[:, 2] > 0).astype(int).tolist()
        counts = self.visible or [0] * len(visible)
        self.visible = [a + b for a, b in zip(counts, visible, strict=True)]

    def lines(self, labelled: int, total: int) -> list[str]:
        """The table; `labelled` of `total` images have labels."""
        kinds = [(self.masks, "masks"), (self.pointed, "keypoints"), (self.depths, "depth")]
        what = ", ".join(f"{count} with {kind}" for count, kind in kinds if count)
        lines = [f"{labelled} of {total} images have labels: {what or 'none'}"]
        if self.classes is not None and self.masks:
            names = [printable_from_text(card.name) for card in self.classes.cards]
            width = max(len("ignored"), *(len(name) for name in names))
            lines += ["", f"{'class':{width}}{'pixels':>13}{'share':>8}  images without"]
            rows = [*enumerate(names), (self.ignore_id, "ignored")]
            for number, name in rows:
                share = self.pixels[number] / max(1, self.pixels.sum())
                without = self.masks - self.images[number]
                lines.append(f"{name:{width}}{self.pixels[number]:13}{share:8.1%}{without:16}")
        if self.pointed:
            names = [printable_from_text(name) for name in self.keypoint_names]
            width = max(len("keypoint"), *(len(name) for name in names))
            lines += ["", f"{'keypoint':{width}}  images without"]
            lines += [
                f"{name:{width}}{self.pointed - count:16}"
                for name, count in zip(names, self.visible, strict=True)
            ]
        return lines

    def check(self, allowed: Allowed, origin: object) -> None:
        """Raises LabelError for a class without a pixel and for too many ignored pixels."""
        if self.classes is None or not self.masks:
            return
        ignored = self.pixels[self.ignore_id] / max(1, self.pixels.sum())
        if ignored > MOST_IGNORED and not allowed.ignored:
            raise LabelError(
                f"{ignored:.1%} of the labeled pixels of {origin} are ignored; the limit is "
                f"{MOST_IGNORED:.0%}: correct the labels, or give --allow-ignored"
            )
        named = list(enumerate(self.classes.cards))
        if is_background(named[0][1].name):  # regions may cover all of it
            del named[0]
        missing = [card.name for number, card in named if self.pixels[number] == 0]
        if missing and not allowed.empty_classes:
            raise LabelError(
                f"{origin} has no pixel of {', '.join(missing)} in {self.masks} images; correct "
                "the labels or the list of classes, or give --allow-empty-classes"
            )
