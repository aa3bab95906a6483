"""A proposal chooses samples by a coin with a known probability, whoever asks and however."""

import numpy as np
import pytest

from engines.fake import FakeMapping, fake_bundle
from engines.proposal import limits_from_w, screened
from engines.sampling import default_options, w_from_indices, ws_from_indices

BUNDLE = fake_bundle(resolution=16, proposals=True)
GENERATOR = BUNDLE.manifest.generator
MAPPING = FakeMapping(GENERATOR)
OPTIONS = default_options(GENERATOR, seed=5)


def test_every_sample_is_chosen_with_its_own_probability() -> None:
    """In each tenth of the probabilities as many are chosen as the sum of them says."""
    indices = np.arange(40_000, dtype=np.uint64)
    result = screened(MAPPING, GENERATOR, OPTIONS, BUNDLE.proposals["rare"], indices)
    probability = 1 / result.weights.astype(np.float64)
    assert result.weights.min() >= 1 and result.weights.max() == 64
    for part in np.array_split(np.argsort(probability, kind="stable"), 10):
        p = probability[part]
        deviation = np.sqrt((p * (1 - p)).sum())
        assert abs(result.chosen[part].sum() - p.sum()) < 4 * deviation


def test_weights_make_chosen_samples_stand_for_all() -> None:
    """The weighted mean of any statistic is that of all samples, within four standard errors."""
    indices = np.arange(40_000, dtype=np.uint64)
    w = w_from_indices(MAPPING, GENERATOR, OPTIONS, indices).astype(np.float64)
    result = screened(MAPPING, GENERATOR, OPTIONS, BUNDLE.proposals["rare"], indices)
    for statistic, biased in ((w[:, 0], 1), (w[:, 0] ** 2, 1), (w[:, 1], 0), (w[:, 0] > 1, 1)):
        values = statistic[result.chosen] * result.weights[result.chosen]
        p = 1 / result.weights.astype(np.float64)
        error = np.sqrt((statistic**2 * (1 - p) / p).sum())
        assert abs(values.sum() - statistic.sum()) < 4 * error
        unweighted = statistic[result.chosen].mean()
        assert not biased or abs(unweighted - statistic.mean()) > 0.1  # weights are needed


@pytest.mark.parametrize("views", [1, 4])
def test_a_choice_is_of_seed_and_object_alone(views: int) -> None:
    options = default_options(GENERATOR, seed=9)
    options = type(options)(**{**vars(options), "views_per_object": views})
    proposal = BUNDLE.proposals["rare"]
    indices = np.arange(4_000, dtype=np.uint64)
    whole = screened(MAPPING, GENERATOR, options, proposal, indices)
    backwards = screened(MAPPING, GENERATOR, options, proposal, indices[::-1])
    assert np.array_equal(whole.chosen, backwards.chosen[::-1])
    assert np.array_equal(whole.weights, backwards.weights[::-1])
    few = [
        screened(MAPPING, GENERATOR, options, proposal, indices[start : start + 7]).chosen
        for start in range(0, 4_000, 7)
    ]
    assert np.array_equal(whole.chosen, np.concatenate(few))
    assert (whole.chosen.reshape(-1, views) == whole.chosen[::views, None]).all()
    assert 0 < whole.chosen.sum() < len(indices) / 4


def test_a_floor_of_one_chooses_every_sample() -> None:
    result = screened(
        MAPPING, GENERATOR, OPTIONS, BUNDLE.proposals["all"], np.arange(1_000, dtype=np.uint64)
    )
    assert result.chosen.all() and (result.weights == 1).all()


def test_w_is_that_of_the_rows_without_truncation() -> None:
    indices = np.array([0, 3, 2**40], np.uint64)
    w = w_from_indices(MAPPING, GENERATOR, OPTIONS, indices)
    assert np.array_equal(w, ws_from_indices(MAPPING, GENERATOR, OPTIONS, indices)[:, -1])


def test_w_that_is_not_finite_has_the_floor() -> None:
    w = np.array([[np.nan] * 16, [np.inf] * 16, [-np.inf] * 16], np.float32)
    with np.errstate(invalid="ignore"):
        limits = limits_from_w(BUNDLE.proposals["rare"], w)
    assert (limits >= 2**32 // 64).all()
