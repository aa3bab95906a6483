"""Which samples of one stream are delivered, by their content: the predicate, a threshold for each
stratum, and the coins that balance the stream.

Enter: a request's filter, a bundle with a calibration, and raw indices. Leave: the bounds of each
row, which the graph compares, and the weights of delivered rows. For each target of a balance, one
side (meets it, or does not) is kept always and the other by chance: a coin is drawn for (seed,
index, target) before the sample is computed, and a row whose coin says so has to be on the first
side. So bounds stay all that the graph needs, and sample i depends on nothing but its index.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.content import (
    ContentPredicate,
    Region,
    array_from_region,
    both_sides,
    content_columns,
    intersected,
    is_within,
    sides_of_class,
)
from engines.errors import SamplingError
from engines.raking import Raking, raking_from_shares, raking_towards
from labelmint.latents import Purpose, random_words
from labelmint.predicate import PredicateError, near_hint

LEAST_KEPT = 1 / 200  # of the samples that pass everything else, by a balance of given shares
LEAST_KEPT_CLASSES = 1 / 10  # by a balance of all classes
MIN_SAMPLES = 20  # of a calibration on each side of a condition
_WORDS = 1 << 32  # different words of a coin
ANYTHING: Region = [{}]


@dataclass(frozen=True, eq=False)
class Balance:
    """Targets of a stream, each with the side of its condition of which all samples are kept."""

    always: tuple[Region, ...]  # [K] regions
    chances: NDArray[np.uint64]  # [K], of 2**32 coins, those that keep a sample of the other side
    kept: float  # mean keep probability of the calibration's samples

    def probabilities(self, content: NDArray[np.float32]) -> NDArray[np.float64]:
        """Exact keep probability of samples with this content [n, S], [n]."""
        found = np.ones(len(content))
        for region, chance in zip(self.always, self.chances, strict=True):
            found *= np.where(is_within(content, region), 1.0, float(chance) / _WORDS)
        return found

    def demands(self, seed: int, indices: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether the sample of each index is kept on the first side of each target alone,
        [n, K]."""
        targets = len(self.chances)
        words = random_words(seed, Purpose.BALANCE, indices, -(-targets // 4))[:, :targets]
        return np.asarray(words.astype(np.uint64) >= self.chances)


@dataclass(frozen=True, eq=False)
class Selection:
    """What the content of a stream's delivered samples has to be."""

    where: ContentPredicate | None  # None: no predicate
    limits: Region  # scores within the threshold of their stratum; ANYTHING without strata
    balance: Balance | None
    extents: tuple[int, int]  # B alternatives that the graph compares, and S statistics

    def boxes(self, seed: int, indices: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Bounds of the rows of these indices, [n, B, 2, S]."""
        alternatives, columns = self.extents
        bounds = array_from_region(self.region, len(self.region), columns)
        found = np.repeat(bounds[None], len(indices), axis=0)
        if self.balance is not None:
            demands = self.balance.demands(seed, indices)
            for number, side in enumerate(self.balance.always):
                found = _narrowed(found, side, demands[:, number])
        boxes = np.empty((len(indices), alternatives, 2, columns), np.float32)
        boxes[:] = array_from_region([], alternatives, columns)
        boxes[:, : found.shape[1]] = found
        return boxes

    def weights(self, content: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weights of delivered samples with this content [n, S], [n]: the inverse of their keep
        probabilities, times the mean keep probability of the calibration, so about 1 in the mean.
        """
        if self.balance is None:
            return np.ones(len(content), np.float32)
        return (self.balance.kept / self.balance.probabilities(content)).astype(np.float32)

    @cached_property
    def region(self) -> Region:
        """The content that may be delivered, whatever the coins."""
        return intersected(ANYTHING if self.where is None else self.where.region, self.limits)


def _narrowed(
    found: NDArray[np.float32], side: Region, demanded: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Bounds [n, R, 2, S] cut to a side's boxes in the demanded rows, [n, R * len(side), 2, S].

    An empty intersection has a lowest value over its highest one, so nothing is in it.
    """
    rows, regions, _, columns = found.shape
    cut = array_from_region(side, len(side), columns)
    parts = np.repeat(found[:, :, None], len(side), axis=2)  # [n, R, boxes of the side, 2, S]
    narrow = parts[demanded]
    narrow[..., 0, :] = np.maximum(narrow[..., 0, :], cut[:, 0])
    narrow[..., 1, :] = np.minimum(narrow[..., 1, :], cut[:, 1])
    parts[demanded] = narrow
    return parts.reshape(rows, regions * len(side), 2, columns)


def sides_of_condition(option: str, text: str, manifest: Manifest) -> tuple[Region, Region]:
    """Where a condition is met and where it is not: a class name, or a predicate.

    Raises SamplingError, naming the option, and BundleLacks.
    """
    columns = content_columns(manifest)
    found = [n for n, c in enumerate(columns) if c.kind == "share" and c.name == text]
    if len(found) == 1:
        return sides_of_class(found[0], manifest)
    if len(found) > 1:
        raise SamplingError(
            f"{option} has the class {text[:100]!r}; this bundle has several of that name, use "
            "others"
        )
    names = [c.name for c in columns if c.kind == "share"]
    if names and not any(letter in text for letter in "(<>="):
        raise SamplingError(
            f"{option} has {text[:100]!r}, which is neither a class of this bundle nor a "
            f"predicate; {near_hint(text, names)}"
        )
    try:
        return both_sides(text, manifest)
    except PredicateError as error:
        problem = str(error).removeprefix("where ")
        raise SamplingError(f"{option} of {text[:100]!r} {problem}") from error


def limits_of_strata(
    conditions: Sequence[str],
    fraction: float,
    overall: float,
    manifest: Manifest,
    content: NDArray[np.float32],
) -> Region:
    """Scores up to the threshold that keeps this fraction of each stratum.

    Strata are the combinations of conditions, each met or not. One with under MIN_SAMPLES samples
    has the overall threshold.

    Args:
        conditions: class names or predicates.
        fraction: to keep, in (0, 1].
        overall: the threshold that keeps this fraction of all samples.
        manifest: the bundle's.
        content: of the calibration's samples, [N, S]; the first column is the score.

    Raises:
        SamplingError: a condition is none, has under MIN_SAMPLES samples on one side, or strata
            have more alternatives than the graph compares.
        BundleLacks: the bundle does not compute what it compares.
    """
    assert manifest.heads is not None  # there is content
    most = manifest.heads.boxes
    sides = [sides_of_condition("filter.keep_by", text, manifest) for text in conditions]
    for text, (met, _) in zip(conditions, sides, strict=True):
        _check_both_sides("filter.keep_by", text, is_within(content, met))
    if fraction == 1:
        return ANYTHING
    found: Region = []
    for stratum in itertools.product(*sides):
        if math.prod(map(len, stratum)) + len(found) > 8 * most:  # would take long
            break
        inside, region = np.ones(len(content), np.bool_), ANYTHING
        for side in stratum:
            inside &= is_within(content, side)
            region = intersected(region, side)
        limit = overall
        if inside.sum() >= MIN_SAMPLES:
            scores = content[inside, 0].astype(np.float64)
            limit = float(np.float32(np.quantile(scores, fraction)))
        found += intersected(region, [{0: (-np.inf, limit)}])
    else:
        if len(found) <= most:
            return found
    raise SamplingError(
        f"filter.keep_by has over {most} alternatives once its conditions are combined; use "
        "fewer, or simpler ones"
    )


def balance_of_shares(
    shares: dict[str, float], manifest: Manifest, content: NDArray[np.float32]
) -> Balance:
    """Coins by which kept samples have these shares.

    Args:
        shares: by condition, a class name or predicate; each in (0, 1).
        manifest: the bundle's.
        content: [N, S], of the calibration's samples that pass everything else.

    Raises:
        SamplingError: a condition is none, too few samples are on one side of it, or the shares
            cannot be reached; the message has those that can.
        BundleLacks: the bundle does not compute what it compares.
    """
    texts = sorted(shares)  # so that the order of a request decides nothing
    sides = [sides_of_condition("filter.balance", text, manifest) for text in texts]
    met = np.stack([is_within(content, side) for side, _ in sides], axis=1)
    for number, text in enumerate(texts):
        _check_both_sides("filter.balance", text, met[:, number])
    targets = np.array([shares[text] for text in texts])
    raking = raking_from_shares(met, targets, LEAST_KEPT)
    if raking is None:
        near = raking_towards(met, targets, LEAST_KEPT)
        words = ", ".join(f"{t[:40]} {s:.3g}" for t, s in zip(texts[:8], near.shares, strict=False))
        raise SamplingError(
            "filter.balance asks for shares that no stream has of which at least one sample in "
            f"{1 / LEAST_KEPT:.0f} is kept; on the way towards them it reaches {words}: ask for "
            "those or less"
        )
    return _balance(raking, sides)


def balance_of_classes(manifest: Manifest, content: NDArray[np.float32]) -> Balance:
    """Coins that raise the classes which fewer than half of the samples show, all by the same part
    of the way to a half, as far as LEAST_KEPT_CLASSES are kept.

    Classes that fewer than MIN_SAMPLES of the samples show are left alone. content: as in
    balance_of_shares.
    """
    sides = [
        sides_of_class(number, manifest)
        for number, column in enumerate(content_columns(manifest))
        if column.kind == "share"
    ]
    counts = [is_within(content, side).sum() for side, _ in sides]
    rare = [n for n, count in enumerate(counts) if MIN_SAMPLES <= count < len(content) / 2]
    if not rare:
        return Balance((), np.empty(0, np.uint64), 1.0)
    met = np.stack([is_within(content, sides[n][0]) for n in rare], axis=1)
    raking = raking_towards(met, np.full(len(rare), 0.5), LEAST_KEPT_CLASSES)
    return _balance(raking, [sides[n] for n in rare])


def _balance(raking: Raking, sides: Sequence[tuple[Region, Region]]) -> Balance:
    always = tuple(
        met if low <= high else unmet
        for (met, unmet), low, high in zip(sides, raking.unmet, raking.met, strict=True)
    )
    least = np.minimum(raking.met, raking.unmet)
    chances = np.maximum(np.rint(least * _WORDS), 1).astype(np.uint64)
    return Balance(always, chances, raking.kept)


def _check_both_sides(option: str, text: str, met: NDArray[np.bool_]) -> None:
    count = int(met.sum())
    if min(count, len(met) - count) < MIN_SAMPLES:
        raise SamplingError(
            f"{option} has {text[:100]!r}, which {count} of {len(met)} calibrated samples meet; "
            f"each side needs {MIN_SAMPLES}: calibrate on more samples, or leave it out"
        )
