"""Pixels of each training step, a function of seed and step so that training can resume.

Half of a step's pixels are uniform over the labeled pixels of each image. The other half is split
evenly over the regions of the image: its classes, and discs around its keypoints.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.labels.labelled_set import LabelledSet

DISC_SIGMAS = 2  # radius of the disc around a keypoint, in heatmap sigmas
_DRAW, _SHUFFLE = 0, 1  # purposes of random numbers, in the counter of Philox


@dataclass(frozen=True)
class Pixels:
    """P pixels of the crop, int64 [P] each."""

    images: Tensor
    rows: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice) -> "Pixels":
        return Pixels(self.images[chosen], self.rows[chosen], self.columns[chosen])


@dataclass(frozen=True)
class Regions:
    """Pixels of one image grouped by region, as positions in the flattened crop.

    Region k is positions[starts[k] : starts[k + 1]]. Regions may overlap.
    """

    positions: NDArray[np.int32]
    starts: NDArray[np.int64]  # [regions + 1]


class PixelSampler:
    """Samples pixels from every image of a set."""

    def __init__(
        self,
        labels: LabelledSet,
        sigma_px: float,
        seed: int,
        device: torch.device | None = None,  # device of the returned tensors
    ) -> None:
        self.crop = labels.crop
        self.device = device
        self.seed = seed
        # Positions in the flattened crop, of each image.
        self.labelled = [_labelled(labels, i) for i in range(len(labels))]
        self.regions = [_regions(labels, i, sigma_px) for i in range(len(labels))]

    @property
    def labelled_total(self) -> int:
        """Number of labeled pixels in all images."""
        return sum(len(positions) for positions in self.labelled)

    def draw(self, step: int, count: int) -> Pixels:
        """Pixels of a step: `count`, rounded up to a multiple of the number of images.

        With more images than `count`, one pixel each from `count` random images.
        """
        rng = _rng(self.seed, step, _DRAW)
        images = np.arange(len(self.labelled))
        if len(images) > count:
            images = rng.choice(images, count, replace=False)
        each = -(-count // len(images))
        chosen = [self._draw_positions(rng, i, each) for i in images]
        return self._pixels(np.repeat(images, each), np.concatenate(chosen))

    def drawn_mask(self, steps: int, count: int) -> NDArray[np.bool_]:
        """Union of the pixels that `draw` returns in steps 0 to `steps` - 1, bool [n, H, W]."""
        drawn = np.zeros((len(self.labelled), self.crop.height, self.crop.width), bool)
        for step in range(steps):
            pixels = self.draw(step, count)
            drawn[pixels.images.cpu(), pixels.rows.cpu(), pixels.columns.cpu()] = True
        return drawn

    def shuffled(self, epoch: int) -> Pixels:
        """All labeled pixels of all images, in a random order for each epoch."""
        images = np.repeat(np.arange(len(self.labelled)), [len(p) for p in self.labelled])
        positions = np.concatenate(self.labelled)
        order = _rng(self.seed, epoch, _SHUFFLE).permutation(len(positions))
        return self._pixels(images[order], positions[order])

    def _draw_positions(
        self, rng: np.random.Generator, image: np.integer, count: int
    ) -> NDArray[np.int64]:
        """`count` positions in one image: half uniform, half by region.

        Regions get equal numbers, to within one, by systematic sampling. Eight pixels over three
        regions, with an offset of 0.5:

            share * 3   0.19 0.56 0.94 1.31 1.69 2.06 2.44 2.81
            region k    0    0    0    1    1    2    2    2
        """
        labelled, regions = self.labelled[image], self.regions[image]
        by_region = count // 2 if len(regions.starts) > 1 else 0
        uniform = labelled[rng.integers(len(labelled), size=count - by_region)]
        share = (np.arange(by_region) + rng.random()) / max(by_region, 1)
        k = (share * (len(regions.starts) - 1)).astype(np.int64)
        first, end = regions.starts[k], regions.starts[k + 1]
        within = first + (rng.random(by_region) * (end - first)).astype(np.int64)
        return np.concatenate([uniform, regions.positions[within]]).astype(np.int64)

    def _pixels(self, images: NDArray[np.int64], positions: NDArray[np.integer]) -> Pixels:
        width = self.crop.width
        chosen = np.stack([images, positions // width, positions % width]).astype(np.int64)
        return Pixels(*torch.from_numpy(chosen).to(self.device))


def _rng(seed: int, counter: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, counter, purpose]))


def _labelled(labels: LabelledSet, i: int) -> NDArray[np.int32]:
    """Positions of the pixels with a label of any kind."""
    known = np.zeros((labels.crop.height, labels.crop.width), bool)
    if labels.masks is not None:
        known |= labels.masks[i] != labels.ignore_id
    if labels.depth is not None:
        known |= np.isfinite(labels.depth[i])
    if labels.keypoints is not None and not np.isnan(labels.keypoints[i]).any():
        known[:] = True
    return np.flatnonzero(known).astype(np.int32)


def _regions(labels: LabelledSet, i: int, sigma_px: float) -> Regions:
    """Regions of image i: the classes present, and discs around visible keypoints."""
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
            disc = np.hypot(column + 0.5 - x, row + 0.5 - y) <= DISC_SIGMAS * sigma_px
            if visible > 0 and disc.any():
                found.append(np.flatnonzero(disc).astype(np.int32))
    starts = np.cumsum([0, *map(len, found)])
    return Regions(np.concatenate(found) if found else np.zeros(0, np.int32), starts)
