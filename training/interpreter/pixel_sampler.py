"""Which pixels a step trains on: a function of (seed, step), so that a fit can be taken up again.

Half of a step's pixels are spread over all labelled ones, half evenly over the regions of each
image: its classes and the surroundings of its keypoints.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.labels.labelled_set import LabelledSet

AROUND_SIGMAS = 2  # radius of a keypoint's surroundings
_DRAW, _SHUFFLE = 0, 1  # what random numbers are for


@dataclass(frozen=True)
class Pixels:
    """P chosen pixels: int64 [P] each, within the crop."""

    images: Tensor
    rows: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice) -> "Pixels":
        return Pixels(self.images[chosen], self.rows[chosen], self.columns[chosen])


@dataclass(frozen=True)
class Regions:
    """Pixels of one image by region, as positions in its flattened rows."""

    members: NDArray[np.int32]  # of region k: members[starts[k] : starts[k + 1]]
    starts: NDArray[np.int64]


class PixelSampler:
    """Draws pixels of every image of a set."""

    def __init__(
        self,
        labels: LabelledSet,
        sigma_px: float,
        seed: int,
        device: torch.device | None = None,  # of the chosen pixels
    ) -> None:
        self.crop = labels.crop
        self.device = device
        self.seed = seed
        self.labelled = [_labelled(labels, i) for i in range(len(labels))]
        self.regions = [_regions(labels, i, sigma_px) for i in range(len(labels))]

    def draw(self, step: int, count: int) -> Pixels:
        """About `count` pixels, as many from each image, of different images when there are
        more images than pixels."""
        random = _random(self.seed, step, _DRAW)
        images = np.arange(len(self.labelled))
        if len(images) > count:
            images = random.choice(images, count, replace=False)
        each = -(-count // len(images))
        chosen = [self._of_image(random, i, each) for i in images]
        return self._pixels(np.repeat(images, each), np.concatenate(chosen))

    def drawn(self, steps: int, count: int) -> NDArray[np.bool_]:
        """The pixels that `draw` gives in steps 0 to `steps`, bool [n, H, W]."""
        found = np.zeros((len(self.labelled), self.crop.height, self.crop.width), bool)
        for step in range(steps):
            pixels = self.draw(step, count)
            found[pixels.images.cpu(), pixels.rows.cpu(), pixels.columns.cpu()] = True
        return found

    def shuffled(self, epoch: int) -> Pixels:
        """All labelled pixels of all images, in the order of this epoch."""
        images = np.repeat(np.arange(len(self.labelled)), [len(p) for p in self.labelled])
        positions = np.concatenate(self.labelled)
        order = _random(self.seed, epoch, _SHUFFLE).permutation(len(positions))
        return self._pixels(images[order], positions[order])

    def _of_image(
        self, random: np.random.Generator, image: np.integer, count: int
    ) -> NDArray[np.int64]:
        """Positions in one image: half from anywhere, half by region."""
        anywhere, regions = self.labelled[image], self.regions[image]
        even = count // 2 if len(regions.starts) > 1 else 0
        uniform = anywhere[random.integers(len(anywhere), size=count - even)]
        # Systematic sampling: regions get equal shares, to the nearest whole pixel.
        share = (np.arange(even) + random.random()) / max(even, 1)
        k = (share * (len(regions.starts) - 1)).astype(np.int64)
        first, last = regions.starts[k], regions.starts[k + 1]
        within = first + (random.random(even) * (last - first)).astype(np.int64)
        return np.concatenate([uniform, regions.members[within]]).astype(np.int64)

    def _pixels(self, images: NDArray[np.int64], positions: NDArray[np.integer]) -> Pixels:
        width = self.crop.width
        chosen = np.stack([images, positions // width, positions % width]).astype(np.int64)
        return Pixels(*torch.from_numpy(chosen).to(self.device))


def _random(seed: int, counter: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, counter, purpose]))


def _labelled(labels: LabelledSet, i: int) -> NDArray[np.int32]:
    """Pixels with any label."""
    known = np.zeros((labels.crop.height, labels.crop.width), bool)
    if labels.masks is not None:
        known |= labels.masks[i] != labels.ignore_id
    if labels.depth is not None:
        known |= np.isfinite(labels.depth[i])
    if labels.keypoints is not None and not np.isnan(labels.keypoints[i]).any():
        known[:] = True
    return np.flatnonzero(known).astype(np.int32)


def _regions(labels: LabelledSet, i: int, sigma_px: float) -> Regions:
    """Classes that are in the image, and discs around its visible keypoints."""
    found: list[NDArray[np.int32]] = []
    if labels.masks is not None:
        flat = labels.masks[i].ravel()
        order = np.argsort(flat, kind="stable").astype(np.int32)
        ids, first = np.unique(flat[order], return_index=True)
        parts = np.split(order, first[1:])
        found += [part for k, part in zip(ids, parts, strict=True) if k != labels.ignore_id]
    if labels.keypoints is not None:
        row, column = np.ogrid[: labels.crop.height, : labels.crop.width]
        for x, y, visible in labels.keypoints[i]:
            disc = np.hypot(column + 0.5 - x, row + 0.5 - y) <= AROUND_SIGMAS * sigma_px
            if visible > 0 and disc.any():
                found.append(np.flatnonzero(disc).astype(np.int32))
    starts = np.cumsum([0, *map(len, found)])
    return Regions(np.concatenate(found) if found else np.zeros(0, np.int32), starts)
