"""w and occupancies of samples -> the move of w that changes one class, and others little.

Each statistic's slope along w is its covariance with w, in units of standard deviations: for normal
w that is the mean of its derivative (Stein's lemma), so what a small move changes on average. With
b the slope of the class's share and B the slopes of all other classes in all cells, the move is

    d = (B B' + damping * I) ^ -1 b

which has the greatest change of the class for the change of others. Without others it is b, the
linear regression. What the class covers of others does not count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.directions.draws import Floats

SMALLEST = 1e-3  # standard deviation of a component of w that counts, over that of the first


@dataclass(frozen=True, eq=False)
class Slopes:
    """Mean changes of masks by moves of one standard deviation along components of w."""

    basis: NDArray[np.float64]  # [r, w_dim], such moves
    own: NDArray[np.float64]  # [r], change of the class's share
    others: NDArray[np.float64]  # [r, r], products of the changes of other classes, summed


def slopes_of_class(w: Floats, occupancy: Floats, number: int) -> Slopes:
    """Slopes for the class of this number.

    w: [n, w_dim]. occupancy: [n, cells, classes], see training.directions.masks.
    """
    centered = w.astype(np.float64) - w.mean(axis=0, dtype=np.float64)
    _, scales, components = np.linalg.svd(centered / np.sqrt(len(w)), full_matrices=False)
    rank = int((scales > SMALLEST * scales[0]).sum())
    scales, components = scales[:rank], components[:rank]
    whitened = centered @ components.T / scales  # [n, r], of variance 1
    share = occupancy[:, :, number].sum(axis=1, dtype=np.float64)
    others = _uncovered(occupancy.astype(np.float64), number).reshape(len(w), -1)
    slopes = whitened.T @ (others - others.mean(axis=0)) / len(w)  # [r, cells * others]
    return Slopes(
        basis=components * scales[:, None],
        own=whitened.T @ (share - share.mean()) / len(w),
        others=slopes @ slopes.T,
    )


def _uncovered(occupancy: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Occupancies of the other classes, as if they shared what the class covers in a cell as they
    share the rest of it on average: to be covered is no change of theirs."""
    others = np.delete(occupancy, number, axis=2)
    mean = others.mean(axis=0)
    parts = mean / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12)  # [cells, others]
    uncovered: NDArray[np.float64] = others + occupancy[:, :, number, None] * parts
    return uncovered


def move_from_slopes(slopes: Slopes, weight: float) -> NDArray[np.float64]:
    """The move of w of strength 1, [w_dim]: one standard deviation of w along it, for more of the
    class.

    weight: of the others; 0 is the linear regression.
    """
    rank = len(slopes.own)
    damping = max(np.trace(slopes.others) / rank, 1e-12)
    along = np.linalg.solve(weight * slopes.others / damping + np.eye(rank), slopes.own)
    length = np.linalg.norm(along)
    if not length > 0:
        return np.zeros(slopes.basis.shape[1])
    move: NDArray[np.float64] = (along / length) @ slopes.basis
    return move
