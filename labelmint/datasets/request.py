"""Request for a data set: all options that its files depend on.

Enter: options of `labelmint download`. Leaves: a checked `Request`. Options of the connection
(target, token, streams) are not part of it, because no file depends on them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, cast

import labelmint
from labelmint.datasets.selection import RULES, kept_by_rule
from labelmint.options import StreamOptions, edits_from_option, query_from_options
from labelmint.predicate import VISIBLE_CONFIDENCE
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.sharding import END_OF_INDICES, shard_indices_between

FORMATS = (
    "webdataset", "coco", "png", "hf", "yolo-seg", "yolo-pose", "cvat", "label-studio", "fiftyone",
)  # fmt: skip
WITH_DEPTH = ("webdataset", "png", "hf", "fiftyone")
# Formats in which a keypoint is visible or not:
CONFIDENT = ("coco", "yolo-pose", "cvat", "label-studio", "fiftyone")
SHARDED = ("webdataset", "hf")  # formats of files with many samples each
DEFAULT_FRACTION = 0.9
DEFAULT_SAMPLES_PER_SHARD = 1000
DEFAULT_JPEG_QUALITY = 95
DEFAULT_MIN_CONFIDENCE = VISIBLE_CONFIDENCE
_MAX_RANKED = 2**31  # samples: their scores are in memory, 4 bytes each


@dataclass(frozen=True)
class Request:
    """One data set, or one shard of it; the fields are named as the options of the command."""

    format: str  # element of FORMATS
    model: str = ""  # empty: the only model of the server
    seed: int = 0
    start_index: int = 0  # first raw index
    end_index: int | None = None  # exclusive
    count: int | None = None  # number of samples to write
    filter: str | None = None  # element of RULES: ranks start_index to end_index - 1
    fraction: float | None = None  # that `filter` keeps, (0, 1]
    keep_fraction: float | None = None  # that the server keeps by its calibration, (0, 1]
    max_uncertainty: float | None = None  # highest score that the server keeps
    where: str | None = None  # predicate of the content of samples that the server keeps
    balance: dict[str, float] | str | None = None  # shares that the written samples should have
    proposal: str | None = None  # chooses the samples that are generated
    edits: dict[str, float] | None = None  # strengths by direction, of all samples
    keep_by: list[str] | None = None  # conditions whose combinations keep_fraction is of
    filter_sets: bool | None = None  # True: the server keeps or drops whole objects
    filter_report: int | None = None  # samples on which the card compares with and without filter
    truncation_psi: float | None = None  # None: the bundle's default
    class_index: int | None = None
    views_per_object: int = 1
    view: int | str | None = None  # see StreamOptions
    shard_index: int = 0
    num_shards: int = 1
    samples_per_shard: int | None = None  # samples in a file, of formats in SHARDED
    image_codec: str = "png"  # or "jpeg"
    jpeg_quality: int | None = None  # 1 to 100
    min_confidence: float | None = None  # of a visible keypoint, of formats in CONFIDENT
    release: str = labelmint.__version__  # other releases may write other bytes

    @property
    def stop(self) -> int | None:
        """End of the raw indices, exclusive; None: the data set ends after `limit` samples."""
        if self.count is None or self.limit is not None:
            return self.end_index
        stop = self.start_index + self.count
        return stop if self.end_index is None else min(stop, self.end_index)

    @property
    def server_filters(self) -> bool:
        """Whether the server decides which samples are written."""
        given = (
            self.keep_fraction, self.max_uncertainty, self.where, self.balance, self.proposal,
        )  # fmt: skip
        return any(option is not None for option in given)

    @property
    def weighted(self) -> bool:
        """Whether samples have weights other than 1."""
        return self.balance is not None or self.proposal is not None

    @property
    def limit(self) -> int | None:
        """Maximum number of samples, if a server-side filter decides which are written."""
        return self.count if self.server_filters else None

    @property
    def shard_prefix(self) -> str:
        """Part of file names that differs between the shards of a request; empty for one shard."""
        if self.num_shards == 1:
            return ""
        digits = len(str(self.num_shards))
        return f"{self.shard_index:0{digits}}of{self.num_shards}-"

    @property
    def ranked(self) -> int:
        """Number of samples that `filter` ranks."""
        assert self.stop is not None, "checked_request refuses a filter without an end"
        return self.stop - self.start_index

    def sampling(self) -> StreamOptions:
        """Sampling options of a stream: what samples depend on, apart from bundle and index."""
        options = StreamOptions(seed=self.seed, views_per_object=self.views_per_object)
        if self.truncation_psi is not None:
            options["truncation_psi"] = self.truncation_psi
        if self.class_index is not None:
            options["class_index"] = self.class_index
        if self.view is not None:
            options["view"] = self.view
        if self.edits is not None:
            options["edits"] = self.edits
        return options

    def filters(self, threshold: float | None) -> StreamOptions:
        """Options by which the server rejects samples.

        Args:
            threshold: highest score of a sample, in place of keep_fraction; None: no limit. With
                keep_by there are several, which the server looks up.
        """
        options = StreamOptions(
            where=self.where,
            balance=cast(Any, self.balance),
            keep_by=self.keep_by,
            proposal=self.proposal,
            filter_sets=bool(self.filter_sets),
        )
        if self.keep_by:
            options["keep_fraction"] = self.keep_fraction
        else:
            options["max_uncertainty"] = threshold
        return options

    def query(self) -> pb.SampleQuery:
        """Query for all samples of this shard, unfiltered; for arithmetic on indices."""
        options = self.sampling()
        options["start_index"] = self.start_index
        options["shard_index"] = self.shard_index
        options["num_shards"] = self.num_shards
        return query_from_options(options)

    def examined(self, next_index: int) -> int:
        """Number of samples with an index under next_index, kept or not."""
        if self.filter:
            return self.ranked
        query = self.query()
        return shard_indices_between(query, self.start_index, next_index)


def checked_request(**options: Any) -> Request:
    """A valid request; fields whose default depends on other fields are filled in.

    Args:
        options: fields of `Request`.

    Raises:
        ValueError: options contradict each other, are out of range, or give no sample.
    """
    request = Request(**options)
    request = dataclasses.replace(request, edits=edits_from_option(request.edits))
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
    sent["where"], sent["filter_sets"] = request.where, bool(request.filter_sets)
    sent["balance"], sent["keep_by"] = cast(Any, request.balance), request.keep_by
    sent["proposal"], sent["count"] = request.proposal, request.limit or 0
    query_from_options(sent)
    request = _with_defaults(request)
    if request.filter:
        _check_filter(request)
    return request


def difference(begun: dict[str, Any], wanted: Request) -> str | None:
    """Description of the first difference between two requests; None if they are equal.

    Args:
        begun: stored request of a folder, as a dict.
        wanted: request of this run; an empty model name matches any.

    Raises:
        KeyError: `begun` is not a request.
    """
    if begun["release"] != wanted.release:
        return f"labelmint {begun['release']}, not {wanted.release}"
    begun = {
        "filter_sets": None,
        "filter_report": None,
        "where": None,
        "balance": None,
        "keep_by": None,
        "proposal": None,
        "edits": None,
        **begun,
    }  # absent in folders of older versions
    for name, value in dataclasses.asdict(wanted).items():
        before = begun[name]
        if before != value and (name, value) != ("model", ""):
            return f"{_option(name, before)}, not {_option(name, value)}"
    return None


def _option(name: str, value: Any) -> str:
    flag = "--edit" if name == "edits" else "--" + name.replace("_", "-")
    if value is True:
        return flag
    return f"no {flag}" if value is None else f"{flag} {value}"


def _check_range(request: Request) -> None:
    if request.count is None and request.end_index is None:
        raise ValueError("neither --count nor --end-index is given; give one of them")
    if request.count is not None and request.count < 1:
        raise ValueError(f"--count {request.count} is under 1; give at least 1")
    stop = request.stop
    if stop is not None and not request.start_index < stop:
        raise ValueError(
            f"--end-index {stop} is not over --start-index {request.start_index}; it is exclusive"
        )
    last = request.start_index + 1 if stop is None else stop
    if last > END_OF_INDICES:
        raise ValueError(f"raw index {last} is over 2**64 - 1; lower --start-index or --count")
    if not 0 <= request.shard_index < request.num_shards:
        raise ValueError(
            f"--shard-index {request.shard_index} is outside 0 to {request.num_shards - 1}; it has "
            "to be under --num-shards"
        )
    if request.num_shards > 1 and request.limit is not None:
        raise ValueError(
            f"--count {request.count} with a filter cannot be split over --num-shards "
            f"{request.num_shards}; give --end-index instead"
        )


def _check_sets(request: Request) -> None:
    """--filter-sets needs several views, a server-side filter, and a range of whole objects."""
    views = request.views_per_object
    if views < 2:
        raise ValueError("--filter-sets needs --views-per-object of 2 or more")
    if request.filter:
        raise ValueError(
            f"--filter {request.filter} and --filter-sets exclude each other; to filter whole "
            "objects, use --keep-fraction, --max-uncertainty or --where"
        )
    if not request.server_filters:
        raise ValueError(
            "--filter-sets needs a filter: --keep-fraction, --max-uncertainty or --where"
        )
    for name in ("start_index", "end_index", "count"):
        value = getattr(request, name)
        if value is not None and value % views:
            raise ValueError(
                f"{_option(name, value)} cuts an object of {views} views, but --filter-sets needs "
                f"whole objects; give a multiple of {views}"
            )


def _check_filter(request: Request) -> None:
    if request.filter not in RULES:
        raise ValueError(f"--filter {request.filter} is unknown; choose from {', '.join(RULES)}")
    excluded = (
        "keep_fraction", "max_uncertainty", "where", "balance", "keep_by", "proposal", "count",
    )  # fmt: skip
    for name in excluded:
        value = getattr(request, name)
        if value is not None:
            raise ValueError(
                f"--filter {request.filter} and {_option(name, value)} exclude each other; "
                "--filter ranks --start-index to --end-index and keeps --fraction of them"
            )
    assert request.fraction is not None, "_with_defaults fills it in"
    if not 0 < request.fraction <= 1:
        raise ValueError(f"--fraction {request.fraction} is outside (0, 1]; 0.9 keeps most")
    if request.ranked > _MAX_RANKED:
        raise ValueError(
            f"--filter ranks {request.ranked} samples, over {_MAX_RANKED}; lower --end-index"
        )
    if not kept_by_rule(request.filter, request.ranked, request.fraction):
        raise ValueError(
            f"--filter {request.filter} keeps none of {request.ranked} samples at --fraction "
            f"{request.fraction}; raise --end-index, or use --filter top-fraction"
        )


def _with_defaults(request: Request) -> Request:
    """Fills in defaults of fields that only some requests have; raises ValueError for others."""
    filters = request.filter is not None or request.server_filters
    conditional = (  # field, default, whether the request may have it, the option that it needs
        ("fraction", DEFAULT_FRACTION, request.filter is not None, "--filter"),
        ("filter_report", None, filters,
         "a filter: --keep-fraction, --max-uncertainty, --where, --balance, --proposal or "
         "--filter"),
        ("samples_per_shard", DEFAULT_SAMPLES_PER_SHARD, request.format in SHARDED,
         "--format webdataset or hf"),
        ("jpeg_quality", DEFAULT_JPEG_QUALITY, request.image_codec == "jpeg",
         "--image-codec jpeg"),
        ("min_confidence", DEFAULT_MIN_CONFIDENCE, request.format in CONFIDENT,
         "--format coco, yolo-pose, cvat, label-studio or fiftyone"),
    )  # fmt: skip
    filled: dict[str, Any] = {}
    for name, default, applies, needed_option in conditional:
        value = getattr(request, name)
        if value is not None and not applies:
            raise ValueError(f"{_option(name, value)} needs {needed_option}")
        filled[name] = default if value is None and applies else value
    return dataclasses.replace(request, **filled)
