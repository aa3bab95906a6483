"""Masks before and after an edit -> what it changes, each figure with an interval of 95 percent.

"Outside" are the pixels that show the edited class neither before nor after: there, nothing should
have moved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Estimate, MeasuredEdit
from engines.masks import Masks
from training.directions.figures import counts_of_bootstrap, estimate_of_values

SHOWN = 0.001  # share of a mask's pixels from which an image shows a class


@dataclass(frozen=True, eq=False)
class Change:
    """Pixel counts of samples before and after one edit."""

    pixels: int  # of a mask
    own: NDArray[np.int64]  # [n], of the class, after
    outside: NDArray[np.int64]  # [n]
    unchanged: NDArray[np.int64]  # [n], of those outside
    both: NDArray[np.int64]  # [n, classes], outside, of the class before and after
    either: NDArray[np.int64]  # [n, classes], outside, of the class before or after

    @property
    def share(self) -> float:
        """Mean share of the pixels that are of the class after the edit."""
        return float(self.own.mean() / self.pixels)

    @property
    def moved(self) -> float:
        """Share of the pixels outside that changed their class."""
        return float(1 - self.unchanged.sum() / max(1, self.outside.sum()))


def change_of_masks(before: Masks, after: Masks, number: int, classes: int) -> Change:
    """The change of masks [n, H, W] by an edit of the class of this number."""
    n = len(before)
    own, outside = after == number, (before != number) & (after != number)
    same = outside & (before == after)

    def by_class(masks: Masks, where: NDArray[np.bool_]) -> NDArray[np.int64]:
        sample = np.arange(n)[:, None, None] * classes + masks
        counts = np.bincount(sample[where], minlength=n * classes)
        return counts.reshape(n, classes).astype(np.int64)

    both = by_class(before, same)
    return Change(
        pixels=before[0].size,
        own=own.sum(axis=(1, 2)),
        outside=outside.sum(axis=(1, 2)),
        unchanged=same.sum(axis=(1, 2)),
        both=both,
        either=by_class(before, outside) + by_class(after, outside) - both,
    )


def measured_edit(strength: float, change: Change, seed: int = 0) -> MeasuredEdit:
    """The figures of one strength."""
    counts = counts_of_bootstrap(np.random.default_rng(seed), len(change.own))  # [1 + R, n]
    with np.errstate(divide="ignore", invalid="ignore"):
        unchanged = (counts @ change.unchanged) / (counts @ change.outside)
        ious = (counts @ change.both) / (counts @ change.either)  # [1 + R, classes]
        present = np.isfinite(ious)
        miou = np.where(present, ious, 0).sum(axis=1) / present.sum(axis=1)
    shown = change.own >= SHOWN * change.pixels
    size = counts.sum(axis=1)
    return MeasuredEdit(
        strength=strength,
        share=_share(counts @ change.own / (size * change.pixels)),
        shown=_share(counts @ shown / size),
        unchanged=_share(unchanged),
        miou=_share(miou),
    )


def _share(values: NDArray[np.float64]) -> Estimate:
    """Where nothing is outside, nothing has changed there."""
    return estimate_of_values(np.clip(np.nan_to_num(values, nan=1.0), 0, 1))
