"""Drawn samples -> what a proposal is worth, each figure with an interval of 95 percent.

All draws together are one sample of a mixture: at w its density is the prior's times
sum over draws of (examined indices * keep probability of the draw at w). The inverse of that factor
is a sample's mass: masses of samples that meet the predicate add up to the share of all samples
that do, whatever the draws were adapted to.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import MAX_FLOAT32, Estimate
from engines.proposal import WORDS, limits_from_w
from training.directions.draws import Draw, Floats

REPETITIONS = 1000  # of the bootstrap
LEVELS = (0.025, 0.975)


def keep_probabilities(draw: Draw, w: Floats) -> NDArray[np.float64]:
    """Probability with which a draw generates samples of these w, [n]."""
    if draw.proposal is None:
        return np.ones(len(w))
    return limits_from_w(draw.proposal, w) / WORDS


def masses_of_draws(draws: Sequence[Draw]) -> list[NDArray[np.float64]]:
    """The mass of each sample, by draw."""
    return [
        1 / np.sum([d.examined * keep_probabilities(d, draw.w) for d in draws], axis=0)
        for draw in draws
    ]


def figures_of_proposal(draws: Sequence[Draw], test: Draw, seed: int = 0) -> dict[str, Estimate]:
    """Figures of the proposal of `test`, whose samples no fit has seen, by fields of ProposalFacts.

    draws: all draws, `test` too; they give the share of all samples. `test` has at least one sample
    that meets the predicate.
    """
    random = np.random.default_rng(seed)
    met = [(mass * draw.met) for mass, draw in zip(masses_of_draws(draws), draws, strict=True)]
    weight = np.where(test.met, 1 / keep_probabilities(test, test.w), 0)

    def repeated(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return counts @ values  # [1 + REPETITIONS]

    share = np.zeros(1 + REPETITIONS)
    for draw, values in zip(draws, met, strict=True):
        if draw is not test:
            share += repeated(values, counts_of_bootstrap(random, len(values)))
    counts = counts_of_bootstrap(random, len(test.met))
    place = next(i for i, draw in enumerate(draws) if draw is test)
    share += repeated(met[place], counts)
    found, size = repeated(test.met.astype(np.float64), counts), counts.sum(axis=1)
    sums, squares = repeated(weight, counts), repeated(weight**2, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = sums**2 / (found * squares)
        gain = found / size / share
    examined = test.examined / len(test.met)
    spread = 2 / math.sqrt(len(test.met))  # of a waiting time
    return {
        "share": estimate_of_values(share),
        "generated_share": estimate_of_values(found / size),
        "gain": estimate_of_values(gain),
        "effective": estimate_of_values(effective),
        "examined": Estimate(
            value=examined, low=max(1.0, examined * (1 - spread)), high=examined * (1 + spread)
        ),
    }


def counts_of_bootstrap(random: np.random.Generator, size: int) -> NDArray[np.float64]:
    """How often each sample is in each repetition of a bootstrap; the first one is the sample."""
    counts = random.multinomial(size, np.full(size, 1 / size), REPETITIONS).astype(np.float64)
    return np.concatenate([np.ones((1, size)), counts])


def estimate_of_values(values: NDArray[np.float64]) -> Estimate:
    """The first value, and the interval of the others that are numbers."""
    others = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(others, LEVELS) if len(others) else (values[0], values[0])
    value = float(values[0])
    low, high = min(float(low), value), max(float(high), value)
    return Estimate(value=value, low=low, high=min(high, MAX_FLOAT32))
