"""Does the uncertainty know where the labels are wrong?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TENTHS = 10


@dataclass(frozen=True)
class Calibration:
    """Scores of n images against their true errors."""

    correlation: float  # Spearman's, of score and error; nan when either is constant
    kept: NDArray[np.float64]  # shares of images kept, from all down, [n]
    by_score: NDArray[np.float64]  # mean error of the most certain of that share, [n]
    by_error: NDArray[np.float64]  # the same with an oracle that knows the errors, [n]

    @property
    def error(self) -> float:
        """Mean error of all images."""
        return float(self.by_score[0])

    @property
    def error_without_tenth(self) -> float:
        """Mean error without the most uncertain tenth."""
        return float(self.by_score[self._tenth])

    @property
    def oracle_without_tenth(self) -> float:
        """Mean error without the worst tenth."""
        return float(self.by_error[self._tenth])

    @property
    def _tenth(self) -> int:
        return len(self.kept) // TENTHS


@dataclass(frozen=True)
class PixelCalibration:
    """Pixels by their uncertainty, in equally many tenths, the most certain first."""

    uncertainty: NDArray[np.float64]  # mean of each tenth
    wrong: NDArray[np.float64]  # share of wrong labels in each


def calibration_of(scores: NDArray[np.float64], errors: NDArray[np.float64]) -> Calibration:
    """Sparsification of n images with a score and an error each (Ilg et al., ECCV 2018)."""
    known = np.isfinite(errors) & np.isfinite(scores)
    scores, errors = scores[known], errors[known]
    return Calibration(
        correlation=_spearman(scores, errors),
        kept=1 - np.arange(len(errors)) / max(len(errors), 1),
        by_score=_kept_means(errors[np.argsort(scores, kind="stable")]),
        by_error=_kept_means(np.sort(errors)),
    )


def pixel_calibration_of(
    uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]
) -> PixelCalibration:
    """Of pixels [p], in the order of their uncertainty."""
    order = np.argsort(uncertainty, kind="stable")
    tenths = np.array_split(order, TENTHS)
    return PixelCalibration(
        np.array([float(uncertainty[tenth].mean()) for tenth in tenths]),
        np.array([float(wrong[tenth].mean()) for tenth in tenths]),
    )


def _kept_means(best_first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of all values, of all but the last, of all but the last two ..., [n]."""
    means = np.cumsum(best_first) / np.arange(1, len(best_first) + 1)
    return means[::-1]


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if len(a) < 2 or ranks_a.std() == 0 or ranks_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]
