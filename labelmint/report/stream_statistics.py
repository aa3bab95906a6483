"""What a range of a stream is like: class frequencies, scores, and samples worth a look.

Enter: a client and options. Leaves: a `Survey`, which `labelmint.report.page` makes a page of.
Memory does not grow with the batches but for a few numbers a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from labelmint.batch import Batch
from labelmint.client import Client
from labelmint.codec import Array
from labelmint.errors import NotReady
from labelmint.latents import UInt64s
from labelmint.model import LabelClass, Model
from labelmint.options import SamplingOptions, StreamOptions

_CLASSES = 256  # masks are uint8


@dataclass(frozen=True)
class ClassFrequency:
    """How often a class occurs, both as shares from 0 to 1."""

    label: LabelClass
    pixels: float  # of all pixels of all masks
    images: float  # of all masks: those with at least one pixel of it


@dataclass(frozen=True)
class KeypointConfidence:
    """How sure a keypoint is over the samples; all nan when no confidence is finite."""

    name: str
    low: float  # 10th percentile
    median: float
    high: float  # 90th percentile


@dataclass(frozen=True)
class DepthRange:
    """Over all pixels, in the unit the head was trained in; both nan when none is finite."""

    nearest: float
    farthest: float
    not_finite: float  # share of pixels


class Tally:
    """Sums over the batches added to it."""

    def __init__(self) -> None:
        self.samples = 0
        self.masks = 0
        self.class_pixels: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.class_images: npt.NDArray[np.int64] = np.zeros(_CLASSES, np.int64)
        self.confidences: list[Array] = []  # float32 [n, K]
        self.depth_pixels = self.depth_finite = 0
        self.nearest, self.farthest = np.inf, -np.inf

    def add(self, batch: Batch) -> None:
        """Counts a batch, as far as it has masks, keypoints and depth."""
        self.samples += len(batch)
        if batch.masks is not None:
            self.masks += len(batch)
            for mask in batch.masks:
                pixels = np.bincount(mask.ravel(), minlength=_CLASSES)
                self.class_pixels += pixels
                self.class_images += pixels > 0
        if batch.keypoints is not None:
            self.confidences.append(batch.keypoints[..., 2].copy())  # not the whole message
        if batch.depth is not None:
            finite = batch.depth[np.isfinite(batch.depth)]
            self.depth_pixels += batch.depth.size
            self.depth_finite += finite.size
            if finite.size:
                self.nearest = min(self.nearest, float(finite.min()))
                self.farthest = max(self.farthest, float(finite.max()))

    def frequencies(self, model: Model) -> tuple[ClassFrequency, ...]:
        """Every class of the model, and nameless ones that occur nonetheless, by id."""
        known = {label.id: label for label in model.classes}
        found = np.flatnonzero(self.class_pixels).tolist()
        pixels = max(1, int(self.class_pixels.sum()))
        return tuple(
            ClassFrequency(
                known.get(number, LabelClass(number, f"class {number}", (0, 0, 0))),
                float(self.class_pixels[number]) / pixels,
                float(self.class_images[number]) / max(1, self.masks),
            )
            for number in sorted({*known, *found} if self.masks else ())
        )

    def keypoints(self, model: Model) -> tuple[KeypointConfidence, ...]:
        """Every keypoint in output order; empty without keypoints."""
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
        """None without depth."""
        if not self.depth_pixels:
            return None
        ends = (self.nearest, self.farthest) if self.depth_finite else (np.nan, np.nan)
        return DepthRange(*ends, 1 - self.depth_finite / self.depth_pixels)


def _percentiles(values: npt.NDArray[np.float64], wanted: tuple[int, ...]) -> list[float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [np.nan] * len(wanted)
    found: list[float] = np.percentile(finite, wanted).tolist()
    return found


MAX_EXAMINED = 65_536  # explicit indices that a server takes in one request by default
USUAL_KEEP_FRACTION = 0.9  # what a survey without a filter says it would discard
SHEET_SAMPLES = 8
EXAMPLES = 3  # on either side of the threshold, and as many at either end
_BATCH = 16
_COUNTED = ("mask", "keypoints", "depth", "uncertainty")
_PICTURED = ("image", *_COUNTED, "uncertainty_map")
_USUAL_MESSAGE_BYTES = (4 << 20) - (16 << 10)  # of a server that is not asked for more


@dataclass(frozen=True)
class Threshold:
    """The score that parts kept from discarded samples."""

    value: float
    keep_fraction: float | None  # the share it stands for; None: given as a score
    applied: bool  # by the server; else it only says what a filter would discard
    calibrated: bool  # from the bundle; else the quantile of the examined samples


@dataclass(frozen=True, eq=False)
class Scored:
    """Samples and their uncertainty, by ascending index."""

    indices: UInt64s  # [n]
    scores: npt.NDArray[np.float32]  # [n]; nan where the model has no score

    def __len__(self) -> int:
        return len(self.indices)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Scored:
        """Those chosen by a mask, bool [n]."""
        return Scored(self.indices[chosen], self.scores[chosen])


@dataclass(frozen=True)
class Examples:
    """Raw indices of samples worth a look, each list by ascending score."""

    surest: tuple[int, ...] = ()  # the lowest scores that are kept
    last_kept: tuple[int, ...] = ()  # the highest
    first_discarded: tuple[int, ...] = ()  # the lowest scores that are discarded
    worst: tuple[int, ...] = ()  # the highest

    def indices(self) -> list[int]:
        """All of them once, ascending."""
        return sorted({*self.surest, *self.last_kept, *self.first_discarded, *self.worst})


@dataclass(frozen=True, eq=False)
class Survey:
    """What the raw indices from start_index to end_index - 1 are like."""

    model: Model
    start_index: int
    end_index: int
    delivered: Tally  # what the filter let through
    examined: Tally  # that and the rest
    threshold: Threshold | None  # None: the model has no score
    kept: Scored  # up to the threshold; all, without one
    discarded: Scored  # above it
    examples: Examples
    sheet: Batch | None  # the first delivered samples, up to SHEET_SAMPLES; None: there are none
    pictures: Batch | None  # the samples of examples


def survey_from_stream(
    client: Client,
    model: Model,
    count: int,
    options: StreamOptions,
    progress: Callable[[int], object],
) -> Survey:
    """Examines count raw indices from start_index on, those that the filter discards too.

    Args:
        client: whom to ask.
        model: as the server described it; only its bundle will do.
        count: 1 to MAX_EXAMINED.
        options: sampling options, at most one filter, and start_index.
        progress: is told how many more samples were received, of count in all.

    Raises:
        ValueError: options that cannot be sent, or a count out of range.
        LabelmintError: a call failed.
    """
    start = options.get("start_index", 0)
    end = start + count
    if not 1 <= count <= MAX_EXAMINED or end >= 2**64:
        raise ValueError(
            f"{count} samples from {start} on are not 1 to {MAX_EXAMINED} under 2**64 - 1; "
            "examine fewer"
        )
    asked: dict[str, Any] = {**options, "model": model.name, "bundle_id": model.bundle_id}
    unfiltered = {
        name: value
        for name, value in asked.items()
        if name not in ("start_index", "keep_fraction", "max_uncertainty", "filter_sets")
    }
    outputs = [name for name in _COUNTED if name in model.outputs]
    examined = Tally()
    delivered, passed = _received(
        client, {**asked, "end_index": end, "outputs": outputs}, examined, progress
    )
    rest = np.setdiff1d(np.arange(start, end, dtype=np.uint64), passed.indices)
    dropped = Scored(rest, np.empty(0, np.float32))
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
    return Survey(
        model,
        start,
        end,
        delivered,
        examined,
        threshold,
        kept,
        discarded,
        examples,
        sheet=_pictured(client, model, shown, unfiltered),
        pictures=_pictured(client, model, examples.indices(), unfiltered),
    )


def examples_from_scores(kept: Scored, discarded: Scored) -> Examples:
    """Up to EXAMPLES of each kind, none of them twice; scores that are not finite are left out."""
    low, high = _by_score(kept), _by_score(discarded)
    return Examples(
        surest=low[: min(EXAMPLES, len(low) // 2)],
        last_kept=low[max(len(low) // 2, len(low) - EXAMPLES) :],
        first_discarded=high[: min(EXAMPLES, -(-len(high) // 2))],
        worst=high[max(-(-len(high) // 2), len(high) - EXAMPLES) :],
    )


def _by_score(samples: Scored) -> tuple[int, ...]:
    finite = samples.where(np.isfinite(samples.scores))
    return tuple(finite.indices[np.argsort(finite.scores, kind="stable")].tolist())


def _received(
    client: Client,
    options: dict[str, Any],
    examined: Tally,
    progress: Callable[[int], object],
) -> tuple[Tally, Scored]:
    """Counts a bounded stream, also into examined."""
    tally = Tally()
    indices: list[UInt64s] = [np.empty(0, np.uint64)]
    scores: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    for batch in client.stream(_BATCH, **cast(StreamOptions, options)):
        tally.add(batch)
        examined.add(batch)
        indices.append(batch.indices)
        none = np.full(len(batch), np.nan, np.float32)
        # A copy: a view would hold the whole message.
        scores.append(none if batch.uncertainty is None else batch.uncertainty.copy())
        progress(len(batch))
    return tally, Scored(np.concatenate(indices), np.concatenate(scores))


def _threshold(
    client: Client, model: Model, passed: Scored, options: StreamOptions
) -> Threshold | None:
    if not model.score_source:
        return None
    limit = options.get("max_uncertainty")
    if limit is not None:
        return Threshold(limit, None, applied=True, calibrated=False)
    asked = options.get("keep_fraction")
    fraction = asked or USUAL_KEEP_FRACTION
    known = SamplingOptions.__annotations__
    sampling = {name: value for name, value in options.items() if name in known}
    try:
        value = client.model(
            model.name, keep_fraction=fraction, **cast(SamplingOptions, sampling)
        ).max_uncertainty
    except NotReady:  # not calibrated for these options
        value = None
    if value is not None:
        return Threshold(value, fraction, applied=asked is not None, calibrated=True)
    finite = np.sort(passed.scores[np.isfinite(passed.scores)])
    if not len(finite):
        return None
    last_kept = finite[max(0, round(fraction * len(finite)) - 1)]
    return Threshold(float(last_kept), fraction, applied=False, calibrated=False)


def _pictured(
    client: Client, model: Model, indices: list[int], options: dict[str, Any]
) -> Batch | None:
    if not indices:
        return None
    outputs = [name for name in _PICTURED if name in model.outputs]
    needed = model.sample_bytes(outputs)
    wanted: dict[str, Any] = {**options, "indices": indices, "outputs": outputs}
    if needed > _USUAL_MESSAGE_BYTES:
        wanted["max_message_bytes"] = needed + (64 << 10)
    return next(client.stream(len(indices), **cast(StreamOptions, wanted)), None)
