"""How well uncertainty finds wrong labels: errors that remain when uncertain images are dropped.

Sparsification (Ilg et al., ECCV 2018) drops images one by one, the most uncertain first, and plots
the mean error of those that remain. An oracle drops the image with the largest error first:

    mean error
      |*.              * by uncertainty
      |o **..          o by true error (oracle), never above
      |  o   ***..
      |    o      ***
      +---------------- share of images dropped
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRACTION_KEPT = 0.9  # share of images kept, the most certain ones
TENTHS = 10  # parts that pixels are split into


@dataclass(frozen=True)
class Sparsification:
    """Curves over n images; entry i is of the n - i images that remain."""

    correlation: float  # Spearman's, of uncertainty and error; nan when either is constant
    kept: NDArray[np.float64]  # share of images that remain, from 1 down, [n]
    by_score: NDArray[np.float64]  # mean error after dropping the most uncertain images, [n]
    by_error: NDArray[np.float64]  # mean error after dropping those with the largest error, [n]

    @property
    def error(self) -> float:
        """Mean error of all images."""
        return float(self.by_score[0])

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.kept)

    @property
    def left_out(self) -> int:
        """Number of images in the most uncertain tenth, as `kept_count` rounds it."""
        return self.images - kept_count(self.images)

    @property
    def error_without_tenth(self) -> float:
        """Mean error without the most uncertain tenth."""
        return float(self.by_score[self.left_out])

    @property
    def oracle_without_tenth(self) -> float:
        """Mean error without as many images that have the largest errors."""
        return float(self.by_error[self.left_out])


@dataclass(frozen=True)
class PixelTenths:
    """Pixels sorted by uncertainty and split into ten equal parts, the most certain first."""

    uncertainty: NDArray[np.float64]  # mean of each tenth, [10]
    wrong: NDArray[np.float64]  # share of wrong labels in each tenth, [10]


def kept_count(images: int) -> int:
    """Number of images that remain without the most uncertain tenth, rounded; at least one."""
    return max(1, round(images * FRACTION_KEPT))


def sparsification_from_scores(
    scores: NDArray[np.float64], errors: NDArray[np.float64]
) -> Sparsification:
    """Sparsification of images with an uncertainty score and an error each, both [n].

    Images where either is not finite are left out.
    """
    known = np.isfinite(errors) & np.isfinite(scores)
    scores, errors = scores[known], errors[known]
    return Sparsification(
        correlation=_spearman(scores, errors),
        kept=1 - np.arange(len(errors)) / max(len(errors), 1),
        by_score=_kept_means(errors[np.argsort(scores, kind="stable")]),
        by_error=_kept_means(np.sort(errors)),
    )


def tenths_from_pixels(uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]) -> PixelTenths:
    """Tenths of pixels with an uncertainty and a verdict (label wrong or not) each, both [P]."""
    order = np.argsort(uncertainty, kind="stable")
    tenths = np.array_split(order, TENTHS)
    return PixelTenths(
        np.array([float(uncertainty[tenth].mean()) for tenth in tenths]),
        np.array([float(wrong[tenth].mean()) for tenth in tenths]),
    )


def _kept_means(best_first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of all n values, of all but the last, of all but the last two, ..., [n]."""
    means = np.cumsum(best_first) / np.arange(1, len(best_first) + 1)
    return means[::-1]


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")  # where scipy warns
    from scipy.stats import spearmanr  # half of torch's time to import

    return float(spearmanr(a, b).statistic)
