"""Counts over many batches, in memory that does not grow with them but for a few numbers a sample.

Enter: batches. Leave: how often each class occurs, how sure keypoints are, how deep depth goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.batch import Batch
from labelmint.codec import Array
from labelmint.model import LabelClass, Model

_CLASSES = 256  # masks are uint8


@dataclass(frozen=True)
class ClassFrequency:
    """How often a class occurs, both as shares from 0 to 1."""

    label: LabelClass
    pixels: float  # of all pixels of all masks
    images: float  # of all masks: those with at least one pixel of it


@dataclass(frozen=True)
class KeypointConfidence:
    """How sure a keypoint is over the samples; all nan when no confidence is finite."""

    name: str
    low: float  # 10th percentile
    median: float
    high: float  # 90th percentile


@dataclass(frozen=True)
class DepthRange:
    """Over all pixels, in the unit the head was trained in; both nan when none is finite."""

    nearest: float
    farthest: float
    not_finite: float  # share of pixels


class Tally:
    """Sums over the batches added to it."""

    def __init__(self) -> None:
        self.samples = 0
        self.masks = 0
        self.class_pixels: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.class_images: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.confidences: list[Array] = []  # float32 [n, K]
        self.depth_pixels = self.depth_finite = 0
        self.nearest, self.farthest = np.inf, -np.inf

    def add(self, batch: Batch) -> None:
        """Counts a batch, as far as it has masks, keypoints and depth."""
        self.samples += len(batch)
        if batch.masks is not None:
            self.masks += len(batch)
            for mask in batch.masks:
                pixels = np.bincount(mask.ravel(), minlength=_CLASSES)
                self.class_pixels += pixels
                self.class_images += pixels > 0
        if batch.keypoints is not None:
            self.confidences.append(batch.keypoints[..., 2].copy())  # not the whole message
        if batch.depth is not None:
            finite = batch.depth[np.isfinite(batch.depth)]
            self.depth_pixels += batch.depth.size
            self.depth_finite += finite.size
            if finite.size:
                self.nearest = min(self.nearest, float(finite.min()))
                self.farthest = max(self.farthest, float(finite.max()))

    def frequencies(self, model: Model) -> tuple[ClassFrequency, ...]:
        """Every class of the model, and nameless ones that occur nonetheless, by id."""
        known = {label.id: label for label in model.classes}
        found = np.flatnonzero(self.class_pixels).tolist()
        pixels = max(1, int(self.class_pixels.sum()))
        return tuple(
            ClassFrequency(
                known.get(number, LabelClass(number, f"class {number}", (0, 0, 0))),
                float(self.class_pixels[number]) / pixels,
                float(self.class_images[number]) / max(1, self.masks),
            )
            for number in sorted({*known, *found} if self.masks else ())
        )

    def keypoints(self, model: Model) -> tuple[KeypointConfidence, ...]:
        """Every keypoint in output order; empty without keypoints."""
        if not self.confidences:
            return ()
        columns = np.concatenate(self.confidences).astype(np.float64).T
        return tuple(
            KeypointConfidence(
                model.keypoints[number] if number < len(model.keypoints) else f"point {number}",
                *_percentiles(column, (10, 50, 90)),
            )
            for number, column in enumerate(columns)
        )

    def depth(self) -> DepthRange | None:
        """None without depth."""
        if not self.depth_pixels:
            return None
        ends = (self.nearest, self.farthest) if self.depth_finite else (np.nan, np.nan)
        return DepthRange(*ends, 1 - self.depth_finite / self.depth_pixels)


def _percentiles(values: npt.NDArray[np.float64], wanted: tuple[int, ...]) -> list[float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [np.nan] * len(wanted)
    found: list[float] = np.percentile(finite, wanted).tolist()
    return found
