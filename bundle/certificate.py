"""Reviewed losses -> what they prove; and whether a certificate says just that.

Losses are shares of wrong pixels, from 0 to 1, of samples in the order of their stream. The
thresholds were fixed before the first loss was known.

Two statements, which hold for any generator and any weights:

- `upper_bounds`, with a probability of 95 percent: the mean loss of kept samples is at most this,
  at all thresholds at once, and however often one looks before stopping. Betting against a mean
  (Waudby-Smith and Ramdas, 2024, sections 4 and 5), with a mixture of constant bets.
- `expected_risk`, on average: conformal risk control (Angelopoulos et al., 2022, theorem 1). A
  discarded sample has no loss. It is no statement about one review, but about the mean over many.

A certificate holds its reviews, so that its figures are computed again wherever one is read: in the
manifest of each bundle that is opened, too.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.entries import hash_problem, seed_problem
from bundle.manifest import Certificate, CertifiedThreshold

Losses = NDArray[np.float64]
KEEP = (1.0, 0.9, 0.75, 0.5)  # shares of samples that the thresholds keep, about
CONFIDENCE = 0.95
BETS = np.array([0.25, 0.5, 0.75, 0.99])  # shares of the capital that a loss of 1 takes
HALVINGS = 20  # to a millionth
ROUNDING = 1e-6  # of figures in a file


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
        low, high = (low, mean) if most_capital(losses, mean) >= 1 / delta else (mean, high)
    return high


def most_capital(losses: Losses, mean: float) -> float:
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


def certified_thresholds(
    losses: Losses, uncertainties: Losses, thresholds: Sequence[float | None], keep: Sequence[float]
) -> list[CertifiedThreshold]:
    """What the reviews prove for each threshold, which was chosen to keep that share of samples."""
    bounds = upper_bounds(losses, uncertainties, thresholds)
    kept = [kept_losses(losses, uncertainties, threshold) for threshold in thresholds]
    return [
        CertifiedThreshold(
            keep=share,
            threshold=threshold,
            reviewed=len(some),
            mean=float(some.mean()) if len(some) else None,
            upper_bound=bound,
            expected_risk=expected_risk(losses, uncertainties, threshold),
        )
        for share, threshold, some, bound in zip(keep, thresholds, kept, bounds, strict=True)
    ]


def problem_of_certificate(certificate: Certificate) -> str | None:
    """The first broken rule of a certificate, as "field is value; rule": one of its figures is not
    what its reviews give, for instance."""
    for field in ("generator_sha256", "interpreter_sha256"):
        if problem := hash_problem(field, getattr(certificate, field)):
            return problem
    if problem := seed_problem("seed", certificate.seed):
        return problem
    if certificate.confidence != CONFIDENCE:
        return f"confidence is {certificate.confidence}; it must be {CONFIDENCE}"
    if len(certificate.losses) != len(certificate.uncertainties):
        return (
            f"losses has {len(certificate.losses)} entries; uncertainties has "
            f"{len(certificate.uncertainties)}"
        )
    return _problem_of_thresholds(certificate)


def _problem_of_thresholds(certificate: Certificate) -> str | None:
    keep = tuple(row.keep for row in certificate.thresholds)
    if keep != KEEP:
        return f"thresholds keep {list(keep)!s:.80}; they must keep {list(KEEP)}"
    limits = [row.threshold for row in certificate.thresholds]
    at_most = [np.inf if limit is None else limit for limit in limits]
    if limits[0] is not None or None in limits[1:] or at_most != sorted(at_most, reverse=True):
        return f"thresholds are {limits}; they must be null, and then not ascending"
    losses, unsure = np.array(certificate.losses), np.array(certificate.uncertainties)
    proved = certified_thresholds(losses, unsure, limits, keep)
    for at, (given, found) in enumerate(zip(certificate.thresholds, proved, strict=True)):
        for field, expected in msgspec.structs.asdict(found).items():
            value = getattr(given, field)
            known = value is not None and expected is not None
            if value != expected and not (known and abs(value - expected) <= ROUNDING):
                return f"thresholds[{at}].{field} is {value}; its reviews give {expected}"
    return None
