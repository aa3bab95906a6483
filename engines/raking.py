"""Keep probabilities by which kept samples have given shares: raking, also known as iterative
proportional fitting (Deming and Stephan, 1940).

Enter: which of N samples meet each of K conditions, and the share of kept samples that should.
Leave: two factors for each condition, for samples that meet it and for those that do not; a
sample's keep probability is the product of its K factors.

Example: 10 of 100 samples meet the only condition, and half of those kept should. The factors are
1 for those that meet it and 1/9 for the others: 10 and 90/9 = 10 are kept, a fifth of all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 100  # of fitting each condition in turn; targets that exist are reached in a few
TOLERANCE = 1e-4  # largest difference of a share from its target
BISECTIONS = 8  # of the way towards targets that cannot be reached


@dataclass(frozen=True, eq=False)
class Raking:
    """Factors, and what they give for the samples that they were fitted to."""

    met: NDArray[np.float64]  # [K], in (0, 1]; the larger one of a condition's two factors is 1
    unmet: NDArray[np.float64]  # [K]
    shares: NDArray[np.float64]  # [K], of kept samples that meet each condition
    kept: float  # mean keep probability

    def probabilities(self, met: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Keep probability of each sample, [n]. met [n, K]."""
        return np.asarray(np.where(met, self.met, self.unmet).prod(axis=1))


def raking_from_shares(
    met: NDArray[np.bool_], shares: NDArray[np.float64], least_kept: float
) -> Raking | None:
    """The factors that give these shares; None if there are none that keep least_kept of all.

    Args:
        met: [N, K], with both sides of each condition present.
        shares: [K], in (0, 1).
        least_kept: lowest mean keep probability.
    """
    kinds, counts = _kinds(met)
    met_factors, unmet_factors = (np.ones(len(shares)) for _ in range(2))
    weights = counts / counts.sum()  # of samples of each kind, times their keep probability
    for _ in range(ROUNDS):
        for k, share in enumerate(shares):
            side = kinds[:, k]
            ends = weights[side].sum(), weights[~side].sum()
            if min(ends) < 1e-12 * sum(ends):
                return None  # one side dies out
            up, down = share * sum(ends) / ends[0], (1 - share) * sum(ends) / ends[1]
            weights = weights * np.where(side, up, down)
            met_factors[k] *= up
            unmet_factors[k] *= down
        reached = np.array([weights[kinds[:, k]].sum() for k in range(len(shares))])
        reached /= weights.sum()
        if np.abs(reached - shares).max(initial=0) <= TOLERANCE:
            break
    else:
        return None
    largest = np.maximum(met_factors, unmet_factors)
    met_factors, unmet_factors = met_factors / largest, unmet_factors / largest
    probabilities = np.where(kinds, met_factors, unmet_factors).prod(axis=1)
    kept = float((counts * probabilities).sum() / counts.sum())
    return Raking(met_factors, unmet_factors, reached, kept) if kept >= least_kept else None


def raking_towards(
    met: NDArray[np.bool_], shares: NDArray[np.float64], least_kept: float
) -> Raking:
    """The factors of the shares as far from those of all samples towards the given ones, all by
    the same part of the way, as they keep least_kept of all samples.

    Arguments are those of raking_from_shares.
    """
    whole = raking_from_shares(met, shares, least_kept)
    if whole is not None:
        return whole
    natural = met.mean(axis=0)
    low, high = 0.0, 1.0
    found = Raking(np.ones(len(shares)), np.ones(len(shares)), natural, 1.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        part = raking_from_shares(met, natural + middle * (shares - natural), least_kept)
        if part is None:
            high = middle
        else:
            low, found = middle, part
    return found


def _kinds(met: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The different rows of met, [kinds, K], and how many samples have each."""
    packed = np.packbits(met, axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return met[first], counts.astype(np.float64)
