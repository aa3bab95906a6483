"""Which samples a predicate keeps: by numbers of each sample's content that the graph computes.

CONTENT, float32 [N, S], is an output of graphs whose manifest has heads.boxes over 0. BOXES,
float32 [N, B, 2, S], is their input: the lowest and the highest value of each statistic, in B
alternatives. A sample passes if all its statistics are within the bounds of one of them.

Example: share('a') >= 0.5 or share('b') > 0.1, masks of 100 pixels, S = 2, B = 3:

    alternative    lowest      highest
    0              50 -inf     inf  inf
    1              -inf 11     inf  inf
    2              inf inf     -inf -inf     none

Shares are counts of pixels there, which all runtimes compute exactly.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.content import rank_of_share
from bundle.manifest import Manifest
from engines.errors import BundleLacks
from labelmint.predicate import (
    Comparison,
    Kind,
    Predicate,
    PredicateError,
    Statistic,
    comparisons,
    near_hint,
    predicate_from_text,
    quantile_name,
)

CONTENT, BOXES = "content", "boxes"
SHOWN = 0.001  # an image shows a class from this share of the mask's pixels on

Interval = tuple[float, float]  # lowest and highest value
Box = dict[int, Interval]  # by column of CONTENT; a column without interval may have any value
Region = list[Box]  # content that is in one of them; [{}] is any content
_LARGEST = float(np.finfo(np.float32).max)
_TINY = float(np.finfo(np.float32).tiny)  # the smallest normal number
_ZERO = float(np.nextafter(np.float32(_TINY), np.float32(0)))  # the largest that counts as 0
_LACKING: dict[Kind, str] = {
    "share": "segmentation head",
    "confidence": "keypoint head",
    "uncertainty": "uncertainty",
    "depth": "depth head",
}


def content_columns(manifest: Manifest) -> tuple[Statistic, ...]:
    """What the columns of CONTENT are; empty for a bundle without CONTENT.

    A "share" is a number of pixels there. Without a segmentation head, for example, there are
    neither shares nor uncertainties of classes.
    """
    heads = manifest.heads
    if heads is None or heads.boxes == 0:
        return ()
    score = [] if heads.score_source is None else [Statistic("uncertainty")]
    classes = [] if heads.segmentation is None else [c.name for c in heads.segmentation.classes]
    points = [] if heads.keypoints is None else heads.keypoints.names
    return (
        *score,
        *(Statistic("share", name) for name in classes),
        *(Statistic("uncertainty", name) for name in classes if score),
        *(Statistic("confidence", name) for name in points),
        *(Statistic("depth", quantile_name(share)) for share in heads.depth_quantiles),
    )


def boxes_of_all(alternatives: int, columns: int) -> NDArray[np.float32]:
    """Bounds that every sample passes, [alternatives, 2, columns]."""
    boxes = _no_boxes(alternatives, columns)
    boxes[0, 0], boxes[0, 1] = -np.inf, np.inf
    return boxes


def passes(content: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each sample passes, [n]: the same comparisons as in the graph.

    content [n, S], boxes [n, B, 2, S].
    """
    values = content[:, None]
    within = (values >= boxes[:, :, 0]) & (values <= boxes[:, :, 1])  # [n, B, S]
    return np.asarray(within.all(axis=2).any(axis=-1), np.bool_)


def content_from_arrays(
    arrays: Mapping[str, NDArray[Any]], columns: Sequence[Statistic]
) -> NDArray[np.float64]:
    """The statistics of samples by their outputs, [n, S], as the graph should compute them.

    arrays: mask, keypoints, depth, uncertainty and uncertainty_map, those that the bundle has.
    columns: see content_columns. The map and depth are float16, so the uncertainties of classes and
    the quantiles of depth are rounded.
    """
    classes = sum(s.kind == "share" for s in columns)
    score = [arrays["uncertainty"][:, None]] if "uncertainty" in arrays else []
    counts, means = list[NDArray[Any]](), list[NDArray[Any]]()
    if "mask" in arrays:
        of_class = arrays["mask"][..., None] == np.arange(classes)  # [n, H, W, C]
        counts.append(of_class.sum(axis=(1, 2)))
    if counts and score:
        values = arrays["uncertainty_map"].astype(np.float64)
        sums = np.einsum("nhwc,nhw->nc", of_class, values)
        means.append(sums / np.maximum(counts[0], 1))
    points = [arrays["keypoints"][..., 2]] if "keypoints" in arrays else []
    shares = [float(s.name) for s in columns if s.kind == "depth"]
    depths = list[NDArray[Any]]()
    if shares:
        values = np.sort(arrays["depth"].reshape(len(arrays["depth"]), -1), axis=1)
        depths.append(values[:, [rank_of_share(share, values.shape[1]) - 1 for share in shares]])
    return np.concatenate([*score, *counts, *means, *points, *depths], axis=1).astype(np.float64)


def content_excess(
    content: NDArray[np.float32],
    arrays: Mapping[str, NDArray[Any]],
    columns: Sequence[Statistic],
) -> float:
    """The largest difference between content and what the outputs of the same run give, as a
    multiple of the accepted one: none, but for the rounding of float16 in classes' uncertainties
    and in depth, whose quantiles are found by halving its range.

    content [n, S]; arrays and columns as for content_from_arrays.
    """
    expected = content_from_arrays(arrays, columns)
    accepted = np.full(expected.shape, 1e-30)
    for column, (kind, name) in enumerate(columns):
        if kind == "depth" or (kind == "uncertainty" and name):
            accepted[:, column] = 1e-6 + 1e-3 * np.abs(expected[:, column])
        if kind == "depth":
            accepted[:, column] += 1e-4 * np.ptp(arrays["depth"].astype(np.float64), axis=(1, 2))
    return float((np.abs(content - expected) / accepted).max())


@dataclass(frozen=True, eq=False)
class ContentPredicate:
    """A predicate as the graphs of one bundle compare it."""

    region: Region  # where it is met
    columns: dict[Statistic, int]  # statistics that it compares, and their columns of CONTENT
    pixels: int  # of a mask

    def met(self, content: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether samples with this content [n, S] meet it, [n]."""
        return is_within(content, self.region)

    def ranges(self, lowest: NDArray[np.float32], highest: NDArray[np.float32]) -> str:
        """Says between which values, [S] each, the statistics were; the first four of them."""
        texts = []
        for statistic, column in sorted(self.columns.items())[:4]:
            unit = self.pixels if statistic.kind == "share" else 1
            ends = (float(end[column]) / unit for end in (lowest, highest))
            texts.append("{} was {:.4g} to {:.4g}".format(statistic, *ends))
        return ", ".join(texts)


def predicate_of_bundle(text: str, manifest: Manifest) -> ContentPredicate:
    """What a text's predicate says of the samples of this bundle.

    Shares are compared as exact fractions, other statistics and their numbers as float32.

    Raises:
        PredicateError: the text is no predicate, has a name that the bundle lacks, no sample can
            meet it, or it has more than B alternatives.
        BundleLacks: the bundle's graph does not compute such statistics.
    """
    predicate = predicate_from_text(text)
    columns = _columns_of(predicate, manifest)
    order, pixels = content_columns(manifest), _pixels(manifest)
    found = _region(predicate, manifest, columns)
    if not any(_is_possible(box, order, pixels) for box in found):
        raise PredicateError(
            f"where is {text!r:.200}, which no sample can meet: a share is from 0 to 1, those of "
            "all classes are 1 together, an uncertainty is at least 0, depths ascend; change it"
        )
    return ContentPredicate(found, columns, pixels)


def both_sides(text: str, manifest: Manifest) -> tuple[Region, Region]:
    """Where in the content a text's predicate is met, and where it is not.

    Raises PredicateError, BundleLacks as `predicate_of_bundle`.
    """
    found = predicate_of_bundle(text, manifest)
    negated = predicate_from_text(text).negated()
    return found.region, _region(negated, manifest, found.columns)


def sides_of_class(column: int, manifest: Manifest) -> tuple[Region, Region]:
    """Where a class has at least SHOWN of the mask's pixels, and where less; its column."""
    pixels = _pixels(manifest)
    first = _first_count(pixels, lambda fraction: fraction >= SHOWN, SHOWN)
    return [{column: (first, pixels)}], [{column: (0, first - 1)}]


def intersected(a: Region, b: Region) -> Region:
    """The content that is in both."""
    both = (_intersection(x, y) for x in a for y in b)
    return _without_contained([box for box in both if box is not None])


def is_within(content: NDArray[np.float32], region: Region) -> NDArray[np.bool_]:
    """Whether samples with this content [n, S] are in one of the region's boxes, [n]."""
    found = np.zeros(len(content), np.bool_)
    for box in region:
        inside = np.ones(len(content), np.bool_)
        for column, (low, high) in box.items():
            values = content[:, column]
            inside &= (values >= np.float32(low)) & (values <= np.float32(high))
        found |= inside
    return found


def _region(predicate: Predicate, manifest: Manifest, columns: dict[Statistic, int]) -> Region:
    """Where a predicate over statistics of these columns is met. Raises PredicateError."""
    assert manifest.heads is not None  # it has columns
    pixels = _pixels(manifest)

    def boxes_of(comparison: Comparison) -> Region:
        column = columns[comparison.statistic]
        if comparison.statistic.kind == "share":
            intervals = _count_intervals(comparison, pixels)
        else:
            intervals = _float32_intervals(comparison)
        return [{column: interval} for interval in intervals]

    return _alternatives(predicate, boxes_of, manifest.heads.boxes)


def _pixels(manifest: Manifest) -> int:
    """Pixels of a mask."""
    assert manifest.labels is not None  # it has columns
    return manifest.labels.height * manifest.labels.width


def _columns_of(predicate: Predicate, manifest: Manifest) -> dict[Statistic, int]:
    """Columns of the predicate's statistics. Raises PredicateError, BundleLacks."""
    if manifest.heads is None:
        raise BundleLacks(
            "this bundle has no labels, so where and max_class_uncertainty have nothing to "
            "compare; leave them out"
        )
    order, heads = content_columns(manifest), manifest.heads
    if not order and (heads.segmentation or heads.keypoints or heads.score_source):
        raise BundleLacks(
            "this bundle's graph computes no shares and confidences, because it is of an older "
            "version: export it again with python -m export bundle, or leave where and "
            "max_class_uncertainty out"
        )
    columns = {}
    for statistic in {comparison.statistic for comparison in comparisons(predicate)}:
        if statistic in order:
            if order.count(statistic) > 1:
                raise PredicateError(
                    f"where has {statistic}; this bundle has several of that name, use others"
                )
            columns[statistic] = order.index(statistic)
            continue
        known = [s.name for s in order if s.kind == statistic.kind and s.name]
        if statistic.kind == "depth" and heads.depth is not None:
            raise _other_depth(statistic, [s for s in order if s.kind == "depth"])
        if not known or not statistic.name:
            raise BundleLacks(
                f"where has {statistic}; this bundle has no {_LACKING[statistic.kind]}"
                + (" of classes" if statistic.kind == "uncertainty" and statistic.name else "")
                + ": leave it out"
            )
        thing = "keypoint" if statistic.kind == "confidence" else "class"
        raise PredicateError(
            f"where has the {thing} {statistic.name[:100]!r}, which this bundle lacks; "
            f"{near_hint(statistic.name, known)}"
        )
    return columns


def _other_depth(
    statistic: Statistic, computed: Sequence[Statistic]
) -> PredicateError | BundleLacks:
    """A quantile of depth that the graph does not compute."""
    if not computed:
        return BundleLacks(
            f"where has {statistic}; this bundle's graph computes no depths for it, because it is "
            "of an older version: export it again with python -m export bundle"
        )
    return PredicateError(
        f"where has {statistic}, which this bundle's graph does not compute; write one of "
        f"{', '.join(map(str, computed))}"
    )


def _alternatives(
    predicate: Predicate, boxes_of: Callable[[Comparison], list[Box]], most: int
) -> list[Box]:
    """The predicate as boxes of which a sample must be in one; none holds another.

    Raises PredicateError for more than `most`, or products of over 8 times as many: they would
    take long, and hardly any has few left.
    """
    if isinstance(predicate, Comparison):
        return boxes_of(predicate)
    parts = (_alternatives(part, boxes_of, most) for part in predicate.parts)
    found = next(parts)
    for part in parts:
        if predicate.word == "or":
            found = found + part
        elif len(found) * len(part) > 8 * most:
            raise _too_many(most)
        else:
            both = (_intersection(a, b) for a in found for b in part)
            found = [box for box in both if box is not None]
        found = _without_contained(found)
        if len(found) > most:
            raise _too_many(most)
    return found


def _too_many(most: int) -> PredicateError:
    return PredicateError(
        f"where has over {most} alternatives once every or within an and is multiplied out; use "
        "fewer of or, != and not"
    )


def _intersection(a: Box, b: Box) -> Box | None:
    """The values in both; None if there are none."""
    both = a | b
    for column in a.keys() & b.keys():
        both[column] = max(a[column][0], b[column][0]), min(a[column][1], b[column][1])
    return both if all(low <= high for low, high in both.values()) else None


def _without_contained(boxes: list[Box]) -> list[Box]:
    """The boxes that are in no other, each once."""
    left: list[Box] = []
    for box in boxes:
        if not any(_contains(other, box) for other in left):
            left = [other for other in left if not _contains(box, other)] + [box]
    return left


def _contains(outer: Box, inner: Box) -> bool:
    for column, (low, high) in outer.items():
        if column not in inner or inner[column][0] < low or high < inner[column][1]:
            return False
    return True


def _is_possible(box: Box, order: tuple[Statistic, ...], pixels: int) -> bool:
    """Whether some sample can be in the box: counts that make a whole mask, no negative score,
    ascending quantiles."""
    least = most = classes = 0.0
    nearest = -math.inf
    for column, statistic in enumerate(order):
        low, high = box.get(column, (-math.inf, math.inf))
        if low > _LARGEST or high < -_LARGEST:
            return False
        if statistic.kind == "uncertainty" and high < 0:
            return False
        if statistic.kind == "share":
            classes += 1
            least, most = least + max(low, 0), most + min(high, pixels)
        if statistic.kind == "depth":
            nearest = max(nearest, low)
            if high < nearest:
                return False
    return not classes or least <= pixels <= most


def _count_intervals(comparison: Comparison, pixels: int) -> list[Interval]:
    """The counts n of `pixels` pixels whose fraction n / pixels meets the comparison."""
    number = comparison.number
    first = _first_count(pixels, lambda fraction: fraction >= number, number)
    above = _first_count(pixels, lambda fraction: fraction > number, number)
    return _intervals(comparison, (0, first - 1), (first, above - 1), (above, pixels))


def _first_count(pixels: int, met: Callable[[float], bool], near: float) -> int:
    """The smallest n whose fraction meets it, pixels + 1 if none does; at least near * pixels."""
    n = math.ceil(min(max(near, 0.0), 1.0) * pixels)  # rounding may lower it by 1, but not raise it
    while n <= pixels and not met(n / pixels):
        n += 1
    return n


def _float32_intervals(comparison: Comparison) -> list[Interval]:
    """The float32 values that meet the comparison with the number as float32.

    Values and numbers that are nearer to 0 than the normal ones count as 0, as on GPUs.
    """
    number = comparison.number
    if abs(number) < _TINY:
        return _intervals(comparison, (-math.inf, -_TINY), (-_ZERO, _ZERO), (_TINY, math.inf))
    if abs(number) > _LARGEST:
        end = math.copysign(math.inf, number)
        return _intervals(comparison, (-math.inf, end), (end, end), (end, math.inf))
    at = np.float32(number)
    below, above = (float(np.nextafter(at, np.float32(end))) for end in (-np.inf, np.inf))
    return _intervals(comparison, (-math.inf, below), (float(at), float(at)), (above, math.inf))


def _intervals(
    comparison: Comparison, below: Interval, at: Interval, above: Interval
) -> list[Interval]:
    """The parts of all values, under, at and over the number, that meet the comparison."""
    parts = {
        "<": [below], "<=": [(below[0], at[1])], "==": [at],
        ">": [above], ">=": [(at[0], above[1])], "!=": [below, above],
    }[comparison.comparator]  # fmt: skip
    return [(low, high) for low, high in parts if low <= high]


def _no_boxes(alternatives: int, columns: int) -> NDArray[np.float32]:
    """Bounds that no sample passes."""
    boxes = np.empty((alternatives, 2, columns), np.float32)
    boxes[:, 0], boxes[:, 1] = np.inf, -np.inf
    return boxes


def array_from_region(found: Region, alternatives: int, columns: int) -> NDArray[np.float32]:
    """Bounds that the graph compares, [alternatives, 2, columns], of at most that many boxes."""
    boxes = _no_boxes(alternatives, columns)
    for number, box in enumerate(found):
        boxes[number, 0], boxes[number, 1] = -np.inf, np.inf
        for column, (low, high) in box.items():
            boxes[number, :, column] = low, high
    return boxes
