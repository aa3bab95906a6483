"""What a data set consists of: `Request`, everything that its files depend on.

Enter: options of the command. Leaves: a checked request. How samples are delivered (target,
token, streams) is no part of it, because it changes no file.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import labelmint
from labelmint.datasets.selection import RULES, kept_by_rule
from labelmint.options import StreamOptions, query_from_options
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.sharding import shard_indices_between

FORMATS = ("webdataset", "coco", "png")
DEFAULT_FRACTION = 0.9
DEFAULT_SAMPLES_PER_SHARD = 1000
DEFAULT_JPEG_QUALITY = 95
DEFAULT_MIN_CONFIDENCE = 0.2
MAX_INDEX = 2**64 - 1
_MAX_FINITE = 2**31  # samples that are ranked: their scores are held in memory, 4 bytes each


@dataclass(frozen=True)
class Request:
    """One data set, or one shard of it; field names are the command's options."""

    format: str  # of FORMATS
    model: str = ""  # "": the server's only one
    seed: int = 0
    start_index: int = 0  # first raw index considered
    end_index: int | None = None  # exclusive
    count: int | None = None  # samples to write
    filter: str | None = None  # of RULES: ranks all of start_index to end_index - 1
    fraction: float | None = None  # of those that the filter keeps, (0, 1]
    keep_fraction: float | None = None  # the server's calibrated filter instead, (0, 1]
    max_uncertainty: float | None = None  # or a limit of one's own
    filter_sets: bool | None = None  # True: those two keep or drop whole objects
    truncation_psi: float | None = None  # None: the bundle's
    class_index: int | None = None
    views_per_object: int = 1
    view: int | str | None = None  # of the model's view bank, or how views are chosen
    shard_index: int = 0
    num_shards: int = 1
    samples_per_shard: int | None = None  # of a tar file
    image_codec: str = "png"  # or "jpeg"
    jpeg_quality: int | None = None  # 1 to 100
    min_confidence: float | None = None  # of a keypoint that COCO is told of
    release: str = labelmint.__version__  # another one may write files differently

    @property
    def stop(self) -> int | None:
        """Where the considered raw indices end, exclusive; None: `limit` alone ends them."""
        if self.count is None or self.limit is not None:
            return self.end_index
        stop = self.start_index + self.count
        return stop if self.end_index is None else min(stop, self.end_index)

    @property
    def limit(self) -> int | None:
        """Samples to write at most, where a filter makes that differ from a range."""
        filtered = self.keep_fraction is not None or self.max_uncertainty is not None
        return self.count if filtered else None

    @property
    def ranked(self) -> int:
        """How many samples the filter ranks."""
        assert self.stop is not None, "checked_request saw to it"
        return self.stop - self.start_index

    def sampling(self) -> StreamOptions:
        """What every sample depends on beside the bundle: SamplingOptions, for a stream."""
        options = StreamOptions(seed=self.seed, views_per_object=self.views_per_object)
        if self.truncation_psi is not None:
            options["truncation_psi"] = self.truncation_psi
        if self.class_index is not None:
            options["class_index"] = self.class_index
        if self.view is not None:
            options["view"] = self.view
        return options

    def query(self) -> pb.SampleQuery:
        """The samples of this shard before any filter, for arithmetic on indices."""
        options = self.sampling()
        options["start_index"] = self.start_index
        options["shard_index"] = self.shard_index
        options["num_shards"] = self.num_shards
        return query_from_options(options)

    def examined(self, next_index: int) -> int:
        """How many samples under next_index were looked at, or ranked by the filter."""
        if self.filter:
            return self.ranked
        query = self.query()
        return shard_indices_between(query, self.start_index, next_index)


def checked_request(**options: Any) -> Request:
    """The request of these fields of `Request`, with what depends on others filled in.

    Raises:
        ValueError: the fields contradict each other, or ask for nothing.
    """
    request = Request(**options)
    if request.format not in FORMATS:
        raise ValueError(f"format {request.format} is unknown; choose from {', '.join(FORMATS)}")
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{_option(name, value)} is not a finite number; give one")
    _check_range(request)
    if request.filter_sets:
        _check_sets(request)
    sent = request.sampling()
    sent["keep_fraction"], sent["max_uncertainty"] = request.keep_fraction, request.max_uncertainty
    sent["count"] = request.limit or 0
    query_from_options(sent)
    request = _with_defaults(request)
    if request.filter:
        _check_filter(request)
    return request


def difference(begun: dict[str, Any], wanted: Request) -> str | None:
    """The first field in which a request differs from a stored one, in words; None: none.

    No model asked for is the model that was found. Raises KeyError for what is no request.
    """
    if begun["release"] != wanted.release:
        return f"labelmint {begun['release']}, not {wanted.release}"
    begun = {"filter_sets": None, **begun}  # folders may have been begun before there was one
    for name, value in dataclasses.asdict(wanted).items():
        before = begun[name]
        if before != value and (name, value) != ("model", ""):
            return f"{_option(name, before)}, not {_option(name, value)}"
    return None


def _option(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return flag
    return f"no {flag}" if value is None else f"{flag} {value}"


def _check_range(request: Request) -> None:
    if request.count is None and request.end_index is None:
        raise ValueError("neither --count nor --end-index: give how many samples to write")
    if request.count is not None and request.count < 1:
        raise ValueError(f"--count {request.count} asks for nothing; give at least 1")
    stop = request.stop
    if stop is not None and not request.start_index < stop:
        raise ValueError(
            f"--end-index {stop} is not over --start-index {request.start_index}; it is exclusive"
        )
    last = request.start_index + 1 if stop is None else stop
    if last > MAX_INDEX:
        raise ValueError(f"raw index {last} is over 2**64 - 1; lower --start-index or --count")
    if not 0 <= request.shard_index < request.num_shards:
        raise ValueError(
            f"--shard-index {request.shard_index} is outside 0 to {request.num_shards - 1}, "
            "under --num-shards"
        )
    if request.num_shards > 1 and request.limit is not None:
        raise ValueError(
            f"--count {request.count} of filtered samples cannot be split over --num-shards "
            f"{request.num_shards}; give --end-index, a range of raw indices"
        )


def _check_sets(request: Request) -> None:
    """Whole objects have several views, a filter that judges them, and a range that cuts none."""
    views = request.views_per_object
    if views < 2:
        raise ValueError("--filter-sets means nothing without --views-per-object, 2 or more")
    if request.filter:
        raise ValueError(
            f"--filter {request.filter} and --filter-sets exclude each other; --filter ranks each "
            "view by itself, --keep-fraction and --max-uncertainty can judge whole objects"
        )
    if request.keep_fraction is None and request.max_uncertainty is None:
        raise ValueError(
            "--filter-sets means nothing without a filter, --keep-fraction or --max-uncertainty"
        )
    for name in ("start_index", "end_index", "count"):
        value = getattr(request, name)
        if value is not None and value % views:
            raise ValueError(
                f"{_option(name, value)} cuts an object of {views} views, which "
                f"--filter-sets keeps whole; give a multiple of {views}"
            )


def _check_filter(request: Request) -> None:
    if request.filter not in RULES:
        raise ValueError(f"--filter {request.filter} is unknown; choose from {', '.join(RULES)}")
    for name in ("keep_fraction", "max_uncertainty", "count"):
        value = getattr(request, name)
        if value is not None:
            raise ValueError(
                f"--filter {request.filter} and {_option(name, value)} exclude each other; "
                "--filter ranks --start-index to --end-index and keeps --fraction of that"
            )
    assert request.fraction is not None, "filled in before"
    if not 0 < request.fraction <= 1:
        raise ValueError(f"--fraction {request.fraction} is outside (0, 1]; 0.9 keeps most")
    if request.ranked > _MAX_FINITE:
        raise ValueError(
            f"--filter ranks {request.ranked} samples, over {_MAX_FINITE}; lower --end-index"
        )
    if not kept_by_rule(request.filter, request.ranked, request.fraction):
        raise ValueError(
            f"--filter {request.filter} keeps none of {request.ranked} samples at --fraction "
            f"{request.fraction}; rank more (research needs over 30 to drop), or try top-fraction"
        )


def _with_defaults(request: Request) -> Request:
    """Fills in what only some requests have; raises ValueError where others have it."""
    conditional = (  # field, its default, when it means something, what that is
        ("fraction", DEFAULT_FRACTION, request.filter is not None, "--filter"),
        ("samples_per_shard", DEFAULT_SAMPLES_PER_SHARD, request.format == "webdataset",
         "--format webdataset"),
        ("jpeg_quality", DEFAULT_JPEG_QUALITY, request.image_codec == "jpeg",
         "--image-codec jpeg"),
        ("min_confidence", DEFAULT_MIN_CONFIDENCE, request.format == "coco", "--format coco"),
    )  # fmt: skip
    filled: dict[str, Any] = {}
    for name, default, applies, what in conditional:
        value = getattr(request, name)
        if value is not None and not applies:
            raise ValueError(f"{_option(name, value)} means nothing without {what}")
        filled[name] = default if value is None and applies else value
    return dataclasses.replace(request, **filled)
