"""Proposals: which raw indices are generated at all, decided by a score of their w.

Rejection generates a thousand samples for one that one in a thousand are. But w is known before
synthesis, for about a thousandth of its cost, and a small network can tell from w how likely a
sample meets a predicate: p(w). Sample i is then generated with the known probability

    a(w) = max(floor, p(w) ** exponent)

by a coin of its own, a function of seed and object. So a stream with a proposal has a part of the
samples that it has without, the same to the bit. Weight 1 / a(w) corrects for the choice exactly,
however wrong p is: the floor gives every sample a chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import GeneratorFacts
from bundle.proposals import Proposal, Score
from engines.protocol import Mapping
from engines.sampling import LatentOptions, w_from_indices
from labelmint.latents import Purpose, random_words

WORDS = 1 << 32  # values of a coin's word
# Outputs are rounded to this. The last bits of a sum depend on how many rows are computed at once,
# and nothing else of a sample may.
GRID = 2.0**-20


@dataclass(frozen=True)
class Screened:
    """What a proposal says of raw indices, in their order."""

    chosen: NDArray[np.bool_]  # [n], whether each is generated
    weights: NDArray[np.float32]  # [n], 1 / keep probability, at least 1


def screened(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: LatentOptions,
    proposal: Proposal,
    indices: NDArray[np.uint64],
) -> Screened:
    """Draws the coins of raw indices [n]. The views of an object are chosen together.

    Raises SamplingError, EngineRunError.
    """
    objects, rows = np.unique(indices // np.uint64(options.views_per_object), return_inverse=True)
    limits = limits_from_w(proposal, w_from_indices(mapping, generator, options, objects))
    words = random_words(options.seed, Purpose.PROPOSAL, objects, 1)[:, 0]
    weights = (WORDS / limits).astype(np.float32)
    return Screened((words < limits)[rows], weights[rows])


def limits_from_w(proposal: Proposal, w: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Keep probabilities of untruncated w [n, w_dim], as the number of the 2**32 words of a coin
    that choose it: uint64 [n], at least 1."""
    facts = proposal.facts
    kept = np.clip(probabilities_from_w(proposal, w) ** facts.exponent, facts.floor, 1.0)
    kept = np.where(np.isnan(kept), facts.floor, kept)  # w that is not finite fails in the engine
    return np.maximum(1, np.floor(kept * WORDS)).astype(np.uint64)


def probabilities_from_w(proposal: Proposal, w: NDArray[np.float32]) -> NDArray[np.float64]:
    """Estimated probabilities that samples of untruncated w [n, w_dim] meet the predicate, [n]."""
    outputs = outputs_from_w(proposal.score, w)
    missed = np.ones(len(w))  # probability that no list of bounds is met
    for bounds in proposal.facts.bounds:
        all_met = np.ones(len(w))
        for bound in bounds:
            value = outputs[:, bound.output]
            over_low = 1.0 if bound.low is None else _sigmoid(value - bound.low)
            over_high = 0.0 if bound.high is None else _sigmoid(value - bound.high)
            all_met *= np.maximum(over_low - over_high, 0)
        missed *= 1 - all_met
    return 1 - missed


def outputs_from_w(score: Score, w: NDArray[np.float32]) -> NDArray[np.float64]:
    """Outputs of the score for untruncated w [n, w_dim], [n, K]."""
    values = (w.astype(np.float64) - score.mean) / score.deviation
    for number, (weights, bias) in enumerate(score.layers):
        values = (np.maximum(values, 0) if number else values) @ weights.astype(np.float64) + bias
    rounded: NDArray[np.float64] = np.round(values / GRID) * GRID
    return rounded


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -values))
