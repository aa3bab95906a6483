"""A plain Python model of a query: the samples and messages that it must deliver."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from bundle.open import Bundle
from engines.fake import FakeEngine, FakeMapping, FakeOptions
from engines.sampling import default_options, ws_from_indices

Score = Callable[[int], float]


@dataclass(frozen=True)
class Wanted:
    """The part of a SampleQuery that decides which indices are delivered."""

    start: int = 0
    end: int = 0
    count: int = 0
    shard: int = 0
    shards: int = 1
    views: int = 1
    indices: tuple[int, ...] = ()
    threshold: float | None = None  # None: no filter
    filter_sets: bool = False
    max_examined: int = 0


@dataclass(frozen=True)
class Expected:
    """What the stream has to be in all."""

    delivered: list[int]
    examined: list[int]
    spent: bool  # ends with OUT_OF_RANGE


def candidates(wanted: Wanted) -> Iterator[int]:
    """Every raw index the reader considers, in order."""
    if wanted.indices:
        yield from (i for i in wanted.indices if i >= wanted.start)
        return
    i = wanted.start
    while not wanted.end or i < wanted.end:
        if i // wanted.views % wanted.shards == wanted.shard:
            yield i
        i += 1


def passes(wanted: Wanted, score: Score, i: int) -> bool:
    """Whether sample i is delivered: itself, or with filter_sets its whole object, is kept."""
    if wanted.threshold is None:
        return True
    if not wanted.filter_sets:
        return score(i) <= wanted.threshold
    first = i // wanted.views * wanted.views
    return all(score(first + view) <= wanted.threshold for view in range(wanted.views))


def expect(wanted: Wanted, score: Score) -> Expected:
    """Walks the candidates one by one."""
    delivered: list[int] = []
    examined: list[int] = []
    for i in candidates(wanted):
        if wanted.count and len(delivered) == wanted.count:
            return Expected(delivered, examined, False)
        if wanted.max_examined and len(examined) == wanted.max_examined:
            return Expected(delivered, examined, True)
        examined.append(i)
        if passes(wanted, score, i):
            delivered.append(i)
    return Expected(delivered, examined, False)


def fake_scores(
    bundle: Bundle, seed: int, views: int, count: int, fake: FakeOptions | None = None
) -> list[float]:
    """The fake engine's uncertainty of the first indices, one run each."""
    engine = FakeEngine(bundle.manifest, fake)
    mapping = FakeMapping(bundle.manifest.generator)
    options = replace(default_options(bundle.manifest.generator, seed), views_per_object=views)
    infinite = np.array([np.inf], np.float32)
    scores = []
    for i in range(count):
        ws = ws_from_indices(mapping, bundle.manifest.generator, options, [i])
        result = engine.run(ws, infinite, ("uncertainty",))
        scores.append(float(result.arrays["uncertainty"][0]))
    return scores
