"""Statistics of a range of a stream: class frequencies, uncertainty scores, example samples.

Enter: a client and stream options. Leaves: `StreamStatistics`, which `labelmint.report.page`
renders as HTML. Memory grows by a few numbers per sample; only the examples keep their images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from labelmint.batch import Batch
from labelmint.client import Client
from labelmint.codec import Array
from labelmint.errors import NotReady
from labelmint.latents import UInt64s
from labelmint.model import LabelClass, Model
from labelmint.options import SamplingOptions, StreamOptions, is_weighted

MAX_EXAMINED = 65_536  # the server's default limit of explicit indices in one request
USUAL_KEEP_FRACTION = 0.9  # of the threshold that is shown for a stream without a filter
SHEET_SAMPLES = 8  # in the contact sheet
EXAMPLES = 3  # for each list of `Examples`
_FILTERS = (
    "keep_fraction", "max_uncertainty", "where", "max_class_uncertainty", "filter_sets", "balance",
    "keep_by", "proposal",
)  # fmt: skip
_BATCH = 16
_CLASSES = 256  # masks are uint8
_COUNTED = ("mask", "keypoints", "depth", "uncertainty")
_PICTURED = ("image", *_COUNTED, "uncertainty_map")
_DEFAULT_MESSAGE_BYTES = (4 << 20) - (16 << 10)  # size of a message without max_message_bytes


@dataclass(frozen=True)
class Threshold:
    """Highest uncertainty score of a kept sample."""

    value: float
    keep_fraction: float | None  # fraction that it keeps; None: the caller gave a score
    applied: bool  # True: the server filtered by it; False: it shows what a filter would discard
    calibrated: bool  # True: from the bundle's calibration; False: quantile of these samples
    divided: bool = False  # True: of all samples, while keep_by has one for each stratum


@dataclass(frozen=True, eq=False)
class ScoredSamples:
    """Indices and uncertainty scores of samples, in ascending order of the indices."""

    indices: UInt64s  # [n]
    scores: npt.NDArray[np.float32]  # [n]; NaN if the model has no score

    def __len__(self) -> int:
        return len(self.indices)

    def where(self, chosen: npt.NDArray[np.bool_]) -> ScoredSamples:
        """The samples where chosen, bool [n], is True."""
        return ScoredSamples(self.indices[chosen], self.scores[chosen])


@dataclass(frozen=True)
class Examples:
    """Raw indices of example samples, each list in ascending order of the score.

    On the axis of the uncertainty score:

        surest ...... last_kept | first_discarded ...... worst
                            threshold
    """

    surest: tuple[int, ...] = ()  # kept, lowest scores
    last_kept: tuple[int, ...] = ()  # kept, highest scores
    first_discarded: tuple[int, ...] = ()  # discarded, lowest scores
    worst: tuple[int, ...] = ()  # discarded, highest scores

    def indices(self) -> list[int]:
        """The indices of all lists, ascending."""
        return sorted({*self.surest, *self.last_kept, *self.first_discarded, *self.worst})


@dataclass(frozen=True, eq=False)
class StreamStatistics:
    """Statistics of the samples with raw indices start_index to end_index - 1."""

    model: Model
    start_index: int
    end_index: int
    delivered: LabelStatistics  # of samples that passed the server's filter
    examined: LabelStatistics  # of all samples
    threshold: Threshold | None  # None: the model has no score
    kept: ScoredSamples  # scores up to the threshold; all samples if there is none
    discarded: ScoredSamples  # scores above the threshold
    examples: Examples
    sheet: Batch | None  # the first delivered samples, at most SHEET_SAMPLES; None: no sample
    pictures: Batch | None  # the samples of `examples`; None: no example


def statistics_from_stream(
    client: Client,
    model: Model,
    count: int,
    options: StreamOptions,
    progress: Callable[[int], object],
) -> StreamStatistics:
    """Examines count samples from start_index on, including those that the filter discards.

    Args:
        client: client of the server.
        model: a model of the server; its bundle is pinned.
        count: number of samples, 1 to MAX_EXAMINED.
        options: sampling options, start_index, and at most one filter.
        progress: is called with the number of samples received since its previous call.

    Raises:
        ValueError: an option cannot be sent, or count is out of range.
        LabelmintError: a call failed.
    """
    start = options.get("start_index", 0)
    end = start + count
    if not 1 <= count <= MAX_EXAMINED or end >= 2**64:
        raise ValueError(
            f"{count} samples from index {start} on are not 1 to {MAX_EXAMINED} samples under "
            "index 2**64 - 1; give a smaller count or start_index"
        )
    pinned: dict[str, Any] = {**options, "model": model.name, "bundle_id": model.bundle_id}
    unfiltered = {
        name: value for name, value in pinned.items() if name not in ("start_index", *_FILTERS)
    }
    outputs = [name for name in _COUNTED if name in model.outputs]
    weights = ["weight"] if is_weighted(options) else []
    examined = LabelStatistics()
    delivered, passed = _received(
        client,
        {**pinned, "end_index": end, "outputs": [*outputs, *weights]},
        examined,
        progress,
    )
    rest = np.setdiff1d(np.arange(start, end, dtype=np.uint64), passed.indices)
    dropped = ScoredSamples(rest, np.empty(0, np.float32))
    if len(rest):
        by_index = {**unfiltered, "indices": rest, "outputs": outputs}
        _, dropped = _received(client, by_index, examined, progress)
    threshold = _threshold(client, model, passed, options)
    kept, discarded = passed, dropped
    if threshold and not threshold.applied:
        sure = passed.scores <= threshold.value
        kept, discarded = passed.where(sure), passed.where(~sure)
    examples = examples_from_scores(kept, discarded)
    shown = passed.indices[:SHEET_SAMPLES].tolist()
    return StreamStatistics(
        model,
        start,
        end,
        delivered,
        examined,
        threshold,
        kept,
        discarded,
        examples,
        sheet=_batch_of_indices(client, model, shown, unfiltered),
        pictures=_batch_of_indices(client, model, examples.indices(), unfiltered),
    )


def examples_from_scores(kept: ScoredSamples, discarded: ScoredSamples) -> Examples:
    """Up to EXAMPLES indices for each list, none in two lists; non-finite scores are left out."""
    low, high = _indices_by_score(kept), _indices_by_score(discarded)
    return Examples(
        surest=low[: min(EXAMPLES, len(low) // 2)],
        last_kept=low[max(len(low) // 2, len(low) - EXAMPLES) :],
        first_discarded=high[: min(EXAMPLES, -(-len(high) // 2))],
        worst=high[max(-(-len(high) // 2), len(high) - EXAMPLES) :],
    )


def _indices_by_score(samples: ScoredSamples) -> tuple[int, ...]:
    finite = samples.where(np.isfinite(samples.scores))
    return tuple(finite.indices[np.argsort(finite.scores, kind="stable")].tolist())


def _received(
    client: Client,
    options: dict[str, Any],
    examined: LabelStatistics,
    progress: Callable[[int], object],
) -> tuple[LabelStatistics, ScoredSamples]:
    """Statistics and scores of a bounded stream, whose batches are also added to `examined`."""
    statistics = LabelStatistics()
    indices: list[UInt64s] = [np.empty(0, np.uint64)]
    scores: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    for batch in client.stream(_BATCH, **cast(StreamOptions, options)):
        statistics.add(batch)
        examined.add(replace(batch, weights=None))
        indices.append(batch.indices)
        none = np.full(len(batch), np.nan, np.float32)
        # A copy: a view would keep the memory of the whole message.
        scores.append(none if batch.uncertainty is None else batch.uncertainty.copy())
        progress(len(batch))
    return statistics, ScoredSamples(np.concatenate(indices), np.concatenate(scores))


def _threshold(
    client: Client, model: Model, passed: ScoredSamples, options: StreamOptions
) -> Threshold | None:
    if not model.score_source:
        return None
    limit = options.get("max_uncertainty")
    if limit is not None:
        return Threshold(limit, None, applied=True, calibrated=False)
    given = options.get("keep_fraction")
    fraction = given or USUAL_KEEP_FRACTION
    known = SamplingOptions.__annotations__
    sampling = {name: value for name, value in options.items() if name in known}
    try:
        value = client.model(
            model.name, keep_fraction=fraction, **cast(SamplingOptions, sampling)
        ).max_uncertainty
    except NotReady:  # the bundle is not calibrated for these options
        value = None
    if value is not None:
        divided = options.get("keep_by") is not None
        return Threshold(value, fraction, given is not None, calibrated=True, divided=divided)
    finite = np.sort(passed.scores[np.isfinite(passed.scores)])
    if not len(finite):
        return None
    last_kept = finite[max(0, round(fraction * len(finite)) - 1)]
    return Threshold(float(last_kept), fraction, applied=False, calibrated=False)


def _batch_of_indices(
    client: Client, model: Model, indices: list[int], options: dict[str, Any]
) -> Batch | None:
    if not indices:
        return None
    outputs = [name for name in _PICTURED if name in model.outputs]
    sample_bytes = model.sample_bytes(outputs)
    by_index: dict[str, Any] = {**options, "indices": indices, "outputs": outputs}
    if sample_bytes > _DEFAULT_MESSAGE_BYTES:
        by_index["max_message_bytes"] = sample_bytes + (64 << 10)
    return next(client.stream(len(indices), **cast(StreamOptions, by_index)), None)


@dataclass(frozen=True)
class ClassFrequency:
    """Frequency of a class in masks, as fractions from 0 to 1."""

    label: LabelClass
    pixels: float  # fraction of all pixels that have the class
    images: float  # fraction of masks with at least one pixel of the class
    weighted: float | None  # the same with each mask counted by its weight; None: no weights


@dataclass(frozen=True)
class KeypointConfidence:
    """Percentiles of a keypoint's confidence over samples; NaN if no confidence is finite."""

    name: str
    low: float  # 10th percentile
    median: float
    high: float  # 90th percentile


@dataclass(frozen=True)
class DepthRange:
    """Depths of all pixels, in the unit of the head's training data; NaN if none is finite."""

    nearest: float
    farthest: float
    not_finite: float  # fraction of pixels without a finite depth, 0 to 1


class LabelStatistics:
    """Class, keypoint and depth statistics of the batches that `add` received."""

    def __init__(self) -> None:
        self.samples = 0
        self.masks = 0
        self.class_pixels: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.class_images: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.class_weights: npt.NDArray[np.float64] = np.zeros(_CLASSES)  # of images with it
        self.weights: list[npt.NDArray[np.float32]] = []  # [n], of masks
        self.confidences: list[Array] = []  # float32 [n, K]
        self.depth_pixels = self.depth_finite = 0
        self.nearest, self.farthest = np.inf, -np.inf

    def add(self, batch: Batch) -> None:
        """Adds the masks, keypoints and depth maps of a batch, whichever it has."""
        self.samples += len(batch)
        if batch.masks is not None:
            self.masks += len(batch)
            weights = np.ones(len(batch)) if batch.weights is None else batch.weights
            for mask, weight in zip(batch.masks, weights, strict=True):
                pixels = np.bincount(mask.ravel(), minlength=_CLASSES)
                self.class_pixels += pixels
                self.class_images += pixels > 0
                self.class_weights += float(weight) * (pixels > 0)
            if batch.weights is not None:
                self.weights.append(batch.weights.copy())  # without the memory of the message
        if batch.keypoints is not None:
            # A copy: a view would keep the memory of the whole message.
            self.confidences.append(batch.keypoints[..., 2].copy())
        if batch.depth is not None:
            finite = batch.depth[np.isfinite(batch.depth)]
            self.depth_pixels += batch.depth.size
            self.depth_finite += finite.size
            if finite.size:
                self.nearest = min(self.nearest, float(finite.min()))
                self.farthest = max(self.farthest, float(finite.max()))

    def frequencies(self, model: Model) -> tuple[ClassFrequency, ...]:
        """Classes of the model and other class ids in the masks, ascending; empty without masks."""
        known = {label.id: label for label in model.classes}
        found = np.flatnonzero(self.class_pixels).tolist()
        pixels = max(1, int(self.class_pixels.sum()))
        weight = float(sum(part.sum(dtype=np.float64) for part in self.weights))
        return tuple(
            ClassFrequency(
                known.get(number, LabelClass(number, f"class {number}", (0, 0, 0))),
                float(self.class_pixels[number]) / pixels,
                float(self.class_images[number]) / max(1, self.masks),
                float(self.class_weights[number]) / weight if weight else None,
            )
            for number in sorted({*known, *found} if self.masks else ())
        )

    @property
    def effective(self) -> float | None:
        """Number of equally weighted samples of which means are as exact as of these weighted
        ones, by Kish's formula; None without weights."""
        if not self.weights:
            return None
        weights = np.concatenate(self.weights).astype(np.float64)
        return float(weights.sum() ** 2 / (weights**2).sum())

    def keypoints(self, model: Model) -> tuple[KeypointConfidence, ...]:
        """Keypoints in the order of the output; empty without keypoints."""
        if not self.confidences:
            return ()
        columns = np.concatenate(self.confidences).astype(np.float64).T
        return tuple(
            KeypointConfidence(
                model.keypoints[number] if number < len(model.keypoints) else f"point {number}",
                *_percentiles(column, (10, 50, 90)),
            )
            for number, column in enumerate(columns)
        )

    def depth(self) -> DepthRange | None:
        """Range of the depth maps; None without depth."""
        if not self.depth_pixels:
            return None
        ends = (self.nearest, self.farthest) if self.depth_finite else (np.nan, np.nan)
        return DepthRange(*ends, 1 - self.depth_finite / self.depth_pixels)


def _percentiles(values: npt.NDArray[np.float64], percents: tuple[int, ...]) -> list[float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [np.nan] * len(percents)
    found: list[float] = np.percentile(finite, percents).tolist()
    return found
