"""Proposals of a bundle: how likely a sample meets a predicate, estimated from its w.

Enter: the file of a proposal, little-endian float32 values without a header, and its facts in the
manifest. Leaves: a `Proposal`. The values, for layers of H hidden units:

    mean [w_dim], deviation [w_dim]           w is first centered and scaled by them
    weights [w_dim, H1], bias [H1]            the layers of the score, one after the other
    weights [H1, K], bias [K]                 the last one has an output for each statistic
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FileError
from bundle.manifest import GeneratorFacts, ProposalFacts, digest_of_facts

Layers = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]  # weights [in, out], bias


@dataclass(frozen=True, eq=False)
class Score:
    """A small network from w to values that grow with the statistics of a sample."""

    mean: NDArray[np.float32]  # [w_dim]
    deviation: NDArray[np.float32]  # [w_dim], over 0
    layers: Layers  # ReLU between them

    @property
    def hidden(self) -> list[int]:
        """Units of each hidden layer."""
        return [len(bias) for _, bias in self.layers[:-1]]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.layers[-1][1])


@dataclass(frozen=True, eq=False)
class Proposal:
    """A proposal as it was read."""

    name: str
    facts: ProposalFacts
    score: Score

    @cached_property
    def digest(self) -> str:
        """Of its facts, see digest_of_facts; made once, because every request compares it."""
        return digest_of_facts(self.facts)


def proposal_bytes(w_dim: int, hidden: Sequence[int], outputs: int) -> int:
    """Size of the file of a proposal."""
    layers = sum((rows + 1) * columns for rows, columns in pairwise([w_dim, *hidden, outputs]))
    return 4 * (2 * w_dim + layers)


def bytes_from_score(score: Score) -> bytes:
    """Content of the file of a proposal."""
    arrays = [score.mean, score.deviation]
    for weights, bias in score.layers:
        arrays += [weights, bias]
    return b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in arrays)


def proposal_from_bytes(
    data: bytes, file: Path, name: str, facts: ProposalFacts, generator: GeneratorFacts
) -> Proposal:
    """Content of a proposal's file, whose size the caller has checked. Raises FileError."""
    values = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise FileError(f"{file} holds values that are not finite; fit the proposal again")
    w_dim, taken = generator.w_dim, 0

    def take(*shape: int) -> NDArray[np.float32]:
        nonlocal taken
        start, taken = taken, taken + int(np.prod(shape))
        return values[start:taken].reshape(shape)

    mean, deviation = take(w_dim), take(w_dim)
    if not (deviation > 0).all():
        raise FileError(f"{file} has a deviation of w that is not over 0; fit the proposal again")
    sizes = pairwise([w_dim, *facts.hidden, facts.outputs])
    layers = tuple((take(rows, columns), take(columns)) for rows, columns in sizes)
    return Proposal(name, facts, Score(mean, deviation, layers))
