"""Filters that rank a finite set of samples by uncertainty and keep the least uncertain.

Enter: scores, float32 [n]. Leave: positions of the kept scores, ascending. Equal scores rank by
position. Unlike these filters, a server filters a stream without end, by a threshold.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

RULES = ("research", "top-fraction")
_RANK_SHIFT = 30  # of the rule "research"


def positions_by_rule(
    rule: str,
    scores: npt.NDArray[np.float32],
    fraction: float,
) -> npt.NDArray[np.int64]:
    """Positions of the scores that a rule keeps, ascending.

    For n = 1000 and fraction = 0.9, d = int(n * (1 - fraction)) = 100, with rank 0 the least
    uncertain sample:

        rule           keeps ranks
        top-fraction   0 to 899
        research       30 to 929, as DatasetGAN and HandsOff do (`uncertainty_portion` = d / n)

    With a fraction of 1 both rules keep all samples.

    Args:
        rule: an element of RULES.
        scores: uncertainty scores, float32 [n].
        fraction: fraction to keep, (0, 1].

    Raises:
        ValueError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN and cannot be ranked"
        )
    order = np.argsort(scores, kind="stable")
    return np.sort(order[_kept_ranks(rule, len(scores), fraction)])


def kept_by_rule(rule: str, n: int, fraction: float) -> int:
    """Number of samples that a rule keeps of n."""
    return len(range(n)[_kept_ranks(rule, n, fraction)])


def _dropped_share(n: int, fraction: float) -> int:
    """int(n * (1 - fraction)) in decimal arithmetic, where 1 - 0.9 is 0.1."""
    return int(n * float(1 - Decimal(repr(float(fraction)))))


def _kept_ranks(rule: str, n: int, fraction: float) -> slice:
    dropped = _dropped_share(n, fraction)
    if rule == "research" and fraction < 1:
        return slice(_RANK_SHIFT, -dropped + _RANK_SHIFT)
    return slice(0, n - dropped)
