"""The bounds hold as often as they say, for losses that are hard on them, at every look."""

import numpy as np
import pytest

from bundle.certificate import (
    CONFIDENCE,
    KEEP,
    Losses,
    expected_risk,
    upper_bound,
    upper_bounds,
)
from export.checks.certificate import more_reviews, thresholds_from_pilot

REPETITIONS, REVIEWS = 200, 120


def drawn(kind: str, rng: np.random.Generator, count: int) -> tuple[Losses, Losses]:
    """Losses and uncertainties, which go together as an ensemble's do."""
    hard = rng.random(count)
    match kind:
        case "smooth":  # most are nearly right
            losses = rng.beta(1, 20, count) * (0.5 + hard)
        case "rare failures":  # which few reviews do not show
            losses = (rng.random(count) < 0.08 * hard).astype(np.float64)
        case _:  # the uncertainty says nothing
            losses = rng.choice([0.0, 0.3, 1.0], count, p=[0.7, 0.2, 0.1])
    return losses, hard


@pytest.mark.parametrize("kind", [pytest.param("smooth", marks=pytest.mark.long), "rare failures"])
def test_the_bound_holds_at_all_thresholds_and_at_every_look(kind: str) -> None:
    """In at least 95 percent of 200 repetitions, as stated; a person may stop at any look."""
    rng = np.random.default_rng(20)
    many, hard = drawn(kind, rng, 400_000)
    wrong, widths = 0, []
    for _ in range(REPETITIONS):
        thresholds = thresholds_from_pilot(drawn(kind, rng, 64)[1])
        truth = [many.mean() if t is None else many[hard <= t].mean() for t in thresholds]
        losses, unsure = drawn(kind, rng, REVIEWS)
        bounds = np.array(upper_bounds(losses, unsure, thresholds))
        wrong += bool((bounds < truth).any())
        widths.append(bounds - truth)
    # The bound after all reviews is the smallest of those at every look, so this is the worst look.
    looks = [upper_bound(losses[:n], 0.05) for n in range(10, REVIEWS + 1, 10)]
    assert looks == sorted(looks, reverse=True)
    assert wrong <= (1 - CONFIDENCE) * REPETITIONS
    assert np.mean(widths, axis=0)[0] < 0.15, "it says something"


def test_conformal_risk_control_holds_on_average() -> None:
    """The loosest threshold whose expected risk is at most alpha has a risk of alpha at most, over
    repetitions, with n fixed; as tight as 1 / (n + 1) lets it be."""
    alpha, rng = 0.1, np.random.default_rng(3)
    many, hard = drawn("uninformative", rng, 200_000)
    pilot = thresholds_from_pilot(hard[:64])
    risks = []
    for _ in range(REPETITIONS):
        losses, unsure = drawn("uninformative", rng, 50)
        fits = [t for t in pilot if expected_risk(losses, unsure, t) <= alpha]
        at = max(t if t is not None else np.inf for t in fits) if fits else -np.inf
        risks.append(float(many[hard <= at].sum()) / len(many))
    assert alpha / 3 < np.mean(risks) <= alpha
    assert expected_risk(np.zeros(19), np.zeros(19), None) == pytest.approx(1 / 20)


def test_the_bound_of_few_or_only_right_samples() -> None:
    assert upper_bound(np.zeros(0), 0.05) == 1
    assert upper_bound(np.ones(50), 0.05) == 1
    bounds = [upper_bound(np.zeros(n), 0.05) for n in (1, 10, 100, 1000)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0.02 < bounds[2] < 0.06, "no less than what 100 coins that show heads prove"
    # One wrong sample more never makes it smaller.
    assert upper_bound(np.append(np.zeros(100), 1.0), 0.05) >= bounds[2]


def test_the_reviews_that_are_asked_for_suffice_if_they_go_on_alike() -> None:
    delta = (1 - CONFIDENCE) / len(KEEP)
    losses = np.tile([0.0, 0.02, 0.01, 0.03], 4)
    more = more_reviews(losses, len(losses), 0.1, delta)
    assert more is not None and 10 < more < 200
    assert upper_bound(np.resize(losses, len(losses) + more), delta) <= 0.1
    assert upper_bound(np.resize(losses, len(losses) + more // 2), delta) > 0.1
    assert more_reviews(losses, len(losses), 0.9, delta) == 0
    assert more_reviews(losses, len(losses), 0.01, delta) is None, "they are worse than that"
    first = more_reviews(np.zeros(0), 0, 0.1, delta)
    assert first is not None and upper_bound(np.zeros(first), delta) <= 0.1, "if all are right"
    # Half of the samples are discarded, so that twice as many must be drawn.
    half = more_reviews(losses[:8], len(losses), 0.1, delta)
    assert half is not None and half > 1.5 * more
