"""Raking finds the one product of factors that gives the shares, or says that there is none."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.raking import TOLERANCE, raking_from_shares, raking_towards

DRAWS = np.random.default_rng(5)


def correlated(samples: int, conditions: int) -> NDArray[np.bool_]:
    """Which samples meet conditions that depend on one hidden cause."""
    cause = DRAWS.standard_normal((samples, 1))
    return np.asarray(
        cause * 0.7 + DRAWS.standard_normal((samples, conditions))
        > np.linspace(0.3, 1.2, conditions)
    )


def shares_of(met: Any, probabilities: Any) -> Any:
    return (met * probabilities[:, None]).sum(axis=0) / probabilities.sum()


def brute_force(met: NDArray[np.bool_], shares: list[float]) -> NDArray[np.float64]:
    """Odds of the two sides of two conditions, by trying a grid that closes in on the best."""
    low, high = np.full(2, -6.0), np.full(2, 6.0)
    for _ in range(14):
        axes = [np.linspace(low[k], high[k], 21) for k in range(2)]
        best: tuple[float, Any] = (np.inf, None)
        for a in axes[0]:
            for b in axes[1]:
                probabilities = np.exp(a * met[:, 0] + b * met[:, 1])
                miss = np.abs(shares_of(met, probabilities) - shares).max()
                if miss < best[0]:
                    best = miss, np.array([a, b])
        step = (high - low) / 8
        low, high = best[1] - step, best[1] + step
    return np.asarray(np.exp(best[1]))


def test_the_example_of_the_docstring() -> None:
    met = np.arange(100)[:, None] < 10
    found = raking_from_shares(met, np.array([0.5]), 0.1)
    assert found is not None and found.met.tolist() == [1.0]
    np.testing.assert_allclose(found.unmet, [1 / 9])
    np.testing.assert_allclose(found.kept, 0.2)


def test_two_correlated_conditions_get_the_factors_of_a_search() -> None:
    met, shares = correlated(600, 2), [0.5, 0.4]
    found = raking_from_shares(met, np.array(shares), 0.005)
    assert found is not None
    odds = found.met / found.unmet
    np.testing.assert_allclose(odds, brute_force(met, shares), rtol=5e-3)


@pytest.mark.parametrize("conditions", [1, 3, 12, 40])
def test_shares_are_reached_and_the_larger_factor_is_one(conditions: int) -> None:
    met = correlated(4000, conditions)
    natural = met.mean(axis=0)
    targets = natural + 0.3 * (0.5 - natural)
    targets[0] = 0.6 * natural[0]  # one is lowered
    found = raking_from_shares(met, targets, 0)
    assert found is not None
    probabilities = found.probabilities(met)
    assert np.abs(shares_of(met, probabilities) - targets).max() <= 2 * TOLERANCE
    np.testing.assert_array_equal(np.maximum(found.met, found.unmet), 1)
    np.testing.assert_allclose(probabilities.mean(), found.kept)
    assert probabilities.min() > 0 and probabilities.max() <= 1


def test_what_no_kept_samples_have_together_is_none() -> None:
    apart = np.eye(2, dtype=np.bool_)[np.arange(200) % 2]  # each sample meets exactly one
    assert raking_from_shares(apart, np.array([0.7, 0.6]), 0.005) is None
    rare = np.arange(10_000)[:, None] < 30
    assert raking_from_shares(rare, np.array([0.9]), 0.005) is None  # keeps 1 in 300
    found = raking_from_shares(rare, np.array([0.5]), 0.005)
    assert found is not None and found.kept >= 0.005


def test_the_way_towards_a_target_ends_where_the_least_share_is_kept() -> None:
    rare = np.arange(10_000)[:, None] < 30
    found = raking_towards(rare, np.array([0.9]), 0.005)
    np.testing.assert_allclose(found.shares, 0.003 / 0.005, atol=4e-3)
    assert found.kept >= 0.005
    apart = np.eye(2, dtype=np.bool_)[np.arange(200) % 2]
    np.testing.assert_allclose(
        raking_towards(apart, np.array([0.7, 0.6]), 0.005).shares, 0.5, atol=4e-3
    )
