"""Filters that rank a finite set of samples by their uncertainty.

Enter: scores, float32 [n] by position. Leave: the kept positions, ascending. Equal scores rank
by position. The server's own filter, a threshold, knows no set: these are for a data set that
has an end.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

RULES = ("research", "top-fraction")
_CERTAIN = 30  # that the research code drops, and adds to the other end


def positions_by_rule(
    rule: str,
    scores: npt.NDArray[np.float32],
    fraction: float,
) -> npt.NDArray[np.int64]:
    """Positions that a rule of RULES keeps of all scores, ascending.

    top-fraction keeps the least uncertain, without the int(n * (1 - fraction)) most uncertain.
    research is what DatasetGAN's and HandsOff's code does, `uncertainty_portion` being
    1 - fraction: as many, but ranks 30 higher. It drops the 30 least uncertain too, and none
    at all for a portion of 0.

    Raises:
        ValueError: a score is NaN, so nothing can be ranked.
    """
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN; nothing ranks")
    order = np.argsort(scores, kind="stable")
    return np.sort(order[_kept_ranks(rule, len(scores), fraction)])


def kept_by_rule(rule: str, n: int, fraction: float) -> int:
    """How many of n samples a rule keeps."""
    return len(range(n)[_kept_ranks(rule, n, fraction)])


def _dropped_share(n: int, fraction: float) -> int:
    """int(n * (1 - fraction)) as people mean it: 1 - 0.9 is 0.1, not 0.09999999999999998."""
    return int(n * float(1 - Decimal(repr(float(fraction)))))


def _kept_ranks(rule: str, n: int, fraction: float) -> slice:
    dropped = _dropped_share(n, fraction)
    if rule == "research" and fraction < 1:
        return slice(_CERTAIN, -dropped + _CERTAIN)
    return slice(0, n - dropped)
