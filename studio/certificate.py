"""What reviewed samples prove about the labels that a threshold keeps: arithmetic alone.

Losses are shares of wrong pixels, from 0 to 1, of samples in the order of their stream. The four
thresholds are fixed by samples that nobody reviews, before the first loss is known.

Two statements, which hold for any generator and any weights:

- `upper_bounds`, with a probability of 95 percent: the mean loss of kept samples is at most this,
  at all thresholds at once, and however often one looks before stopping. Betting against a mean
  (Waudby-Smith and Ramdas, 2024, sections 4 and 5), with a mixture of constant bets.
- `expected_risk`, on average: conformal risk control (Angelopoulos et al., 2022, theorem 1). A
  discarded sample has no loss. It is no statement about one review, but about the mean over many.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]
KEEP = (1.0, 0.9, 0.75, 0.5)  # shares of samples that the thresholds keep, about
CONFIDENCE = 0.95
BETS = np.array([0.25, 0.5, 0.75, 0.99])  # shares of the capital that a loss of 1 takes
HALVINGS = 20  # to a millionth
MOST_REVIEWS = 1 << 13  # that are ever asked for


def thresholds_from_pilot(uncertainties: NDArray[np.floating]) -> list[float | None]:
    """The uncertainty that a sample of each share of KEEP has at most; None keeps every sample.

    `uncertainties` are those of samples outside the review, which makes the thresholds independent
    of it. They have four digits, so that one can type them.
    """
    return [
        None if share == 1 else float(f"{np.quantile(uncertainties, share):.4g}") for share in KEEP
    ]


def is_kept(uncertainty: float, threshold: float | None) -> bool:
    """Whether a threshold keeps a sample."""
    return threshold is None or uncertainty <= threshold


def upper_bound(losses: Losses, delta: float) -> float:
    """Upper bound of the mean of independent losses [n] from 0 to 1, wrong with probability delta.

    The losses come in the order in which they were drawn. Valid at every n at once, so n may depend
    on the losses before it. 1 without losses.
    """
    if not len(losses):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):  # the capital grows with the mean that is bet against
        mean = (low + high) / 2
        low, high = (low, mean) if _most_capital(losses, mean) >= 1 / delta else (mean, high)
    return high


def _most_capital(losses: Losses, mean: float) -> float:
    """The largest capital of a gambler who starts with 1 and bets that the mean is below `mean`,
    which is under 1: a supermartingale if it is not, and then it ever reaches 1 / delta with
    probability delta at most (Ville)."""
    steps = np.log1p(BETS[:, None] * (mean - losses) / (1 - mean)).cumsum(axis=1)
    with np.errstate(over="ignore"):
        return float(np.exp(steps).mean(axis=0).max())


def upper_bounds(
    losses: Losses, uncertainties: Losses, thresholds: Sequence[float | None]
) -> list[float]:
    """Upper bound of the mean loss of the samples that each threshold keeps. All hold at once with
    a probability of CONFIDENCE."""
    delta = (1 - CONFIDENCE) / len(thresholds)
    return [upper_bound(kept_losses(losses, uncertainties, t), delta) for t in thresholds]


def kept_losses(losses: Losses, uncertainties: Losses, threshold: float | None) -> Losses:
    """The losses of the samples that a threshold keeps, in their order."""
    return losses if threshold is None else losses[uncertainties <= threshold]


def expected_risk(losses: Losses, uncertainties: Losses, threshold: float | None) -> float:
    """(n / (n + 1)) * mean + 1 / (n + 1) of the losses, where a discarded sample has none.

    If one takes the loosest threshold at which this is at most alpha, the next sample's loss has an
    expectation of at most alpha, over the reviews and the sample; n is fixed beforehand.
    """
    return (float(kept_losses(losses, uncertainties, threshold).sum()) + 1) / (len(losses) + 1)


def more_reviews(kept: Losses, drawn: int, error: float, delta: float) -> int | None:
    """How many more samples of the stream bring the bound to `error`, if their losses are like the
    kept ones so far, or all right if there are none; None: over MOST_REVIEWS, or no number does.

    An estimate, which proves nothing. `drawn` samples have been reviewed, kept or not.
    """
    share = max(len(kept), 1) / max(drawn, 1)
    again = kept if len(kept) else np.zeros(1)
    most = MOST_REVIEWS - len(kept)

    def enough(extra: int) -> bool:
        losses = np.concatenate([kept, np.resize(again, extra)])
        return len(losses) > 0 and _most_capital(losses, error) >= 1 / delta

    if enough(0):
        return 0
    if most < 1 or not enough(most):
        return None
    low, high = 0, most
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return int(np.ceil(high / share))
