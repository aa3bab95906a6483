"""Images of one size in one tensor, which a training draws from while more are added."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

FIRST = 64  # images that are there before the first step, if there are as many
BATCH = 16  # images made at once; rounding depends on it, so it is the same for every `fill`
BAR_DELAY_S = 1.0

# Indices -> images uint8 [n, H, W, 3], and class ids uint8 [n, H, W] or None.
Draw = Callable[[range], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]


class Pool:
    """The first images of a source, with masks and provenance where the source has them.

    With `draw`, `images` and `masks` are room for what it makes: the pool begins empty, and every
    `fill` adds to it. Without, it is full from the beginning.
    """

    def __init__(
        self,
        images: Tensor,  # uint8 [count, 3, H, W]
        masks: Tensor | None = None,  # class ids, uint8 [count, H, W]
        licences: tuple[str, ...] = (),
        generator_sha256: str | None = None,  # SHA-256 of the weights file, if known
        draw: Draw | None = None,
    ) -> None:
        self.count = len(images)  # images of a full pool
        self.size = (images.shape[2], images.shape[3])  # (height, width) in pixels
        self.licences, self.generator_sha256 = licences, generator_sha256
        self.first = self.count if draw is None else min(self.count, FIRST)
        self._images, self._masks, self._draw = images, masks, draw
        self._drawn = self.count if draw is None else 0
        self._filled = 0
        self._hash = hashlib.sha256()
        if draw is None:
            self.fill(self.count)

    @property
    def images(self) -> Tensor:
        """uint8 [n, 3, H, W]; n is the largest count that `fill` was called with."""
        return self._images[: self._filled]

    @property
    def masks(self) -> Tensor | None:
        """Class ids, uint8 [n, H, W]."""
        return None if self._masks is None else self._masks[: self._filled]

    @property
    def full(self) -> bool:
        """Whether all images are there."""
        return self._filled == self.count

    @property
    def digest(self) -> str:
        """SHA-256 of the images that are there."""
        return self._hash.hexdigest()

    def fill(self, count: int) -> None:
        """Adds images until there are `count`, at most `self.count`. Raises TrainingError."""
        if count <= self._filled:
            return
        if self._drawn < count:
            self._make(count)
        self._hash.update(self._images[self._filled : count].contiguous().numpy().data)
        self._filled = count

    def _make(self, count: int) -> None:
        """Makes at least the images up to `count`, in batches that are the same for any course of
        calls."""
        assert self._draw is not None
        images = self._images.numpy()  # the same memory
        class_ids = None if self._masks is None else self._masks.numpy()
        bar = tqdm(
            total=self.count, initial=self._drawn, desc="images", unit="image",
            delay=BAR_DELAY_S, leave=None,
        )  # fmt: skip
        with bar:
            while self._drawn < count:
                part = range(self._drawn, min(self._drawn + BATCH, self.count))
                pixels, masks = self._draw(part)
                images[part.start : part.stop] = pixels.transpose(0, 3, 1, 2)
                if class_ids is not None and masks is not None:
                    class_ids[part.start : part.stop] = masks
                self._drawn = part.stop
                bar.update(len(part))
