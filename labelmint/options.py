"""Options of a stream: their types, their checks, and the query that is sent to the server.

Enter: keyword options. Leaves: a protobuf SampleQuery. Options that the message cannot hold are
refused here; the server checks the rest, because it knows the model.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypedDict, cast

import numpy as np
import numpy.typing as npt

from labelmint.arguments import of_type, real_number, whole_number
from labelmint.codec import codec_from_name, output_from_name, tensor_from_array
from labelmint.filter_options import filter_from_options
from labelmint.latents import uint64_from_indices
from labelmint.predicate import MAX_CHARACTERS
from labelmint.v1 import label_service_pb2 as pb

LATENT_SOURCES: dict[str, pb.LatentSource] = {
    "philox": pb.LATENT_SOURCE_PHILOX,
    "mt19937": pb.LATENT_SOURCE_MT19937,
}
VIEW_MODES: dict[str, pb.ViewMode] = {
    "drawn": pb.VIEW_MODE_DRAWN,
    "bank": pb.VIEW_MODE_BANK,
    "random": pb.VIEW_MODE_RANDOM,
}


class SamplingOptions(TypedDict, total=False):
    """Options that a sample depends on, in addition to the bundle and its index.

    Values of `view`:

        a number    code of the view bank, the same view for all samples
        "random"    a random view of the view bank for each sample
        "bank"      the first views_per_object views of the view bank, for each object
        "drawn"     no view bank: viewpoints from the seed, or the object's own for one view
        None        "bank" if views_per_object is over 1 and the model has a bank, else "drawn"
    """

    seed: int  # 0 to 2**64 - 1; default 0
    latent_source: str  # "philox" (default), or "mt19937": the latents of NumPy's RandomState
    truncation_psi: float | None  # 0 to 2; None: the bundle's default
    truncation_cutoff: int | None  # number of rows of w+ to truncate; None: the bundle's default
    class_index: int | None  # for class-conditional generators; None: drawn for each object
    views_per_object: int  # V: index i is view i mod V of object i div V; default 1
    view: int | str | None  # see above
    # By direction of the model, how far w+ is moved along it, in standard deviations of the drawn
    # w: the same samples with more (or less) of a class, see docs/rare.md. At most 8.
    edits: Mapping[str, float] | None


class StreamOptions(SamplingOptions, total=False):
    """Keyword options of `Client.stream` and `Client.generate`; all are optional."""

    model: str  # name of the model; optional if the server has only one
    bundle_id: str  # the server has to serve this bundle, or refuses
    learned_id: str  # proposal, directions and calibration are those of this Batch.learned_id

    # Which samples to deliver
    keep_fraction: float | None  # fraction to keep, (0, 1]: about this share, the least uncertain
    max_uncertainty: float | None  # highest score of a delivered sample, from 0 up
    where: str | None  # predicate of a delivered sample's content, see labelmint.predicate
    # By class name, the highest mean uncertainty of its pixels in a delivered sample.
    max_class_uncertainty: Mapping[str, float] | None
    proposal: str | None  # name of a proposal of the model: generate only what it chooses
    filter_sets: bool  # keep or drop all views of an object together; views_per_object over 1
    # Shares of the delivered samples that should meet a condition, by class name or predicate, in
    # (0, 1): {"glasses": 0.5}. "classes" raises every class that fewer than half of the images
    # show. Batches then have `weights`, which correct losses for it; see docs/streams.md.
    balance: Mapping[str, float] | Literal["classes"] | None
    # Classes or predicates, up to 3: keep_fraction is of the samples of each combination of them.
    keep_by: str | Sequence[str] | None

    # Which range of raw indices
    start_index: int  # first index; default 0
    end_index: int  # end of the range, exclusive; 0: no end
    count: int  # number of samples to deliver; 0: no limit
    shard_index: int  # number of this reader, from 0 to num_shards - 1; default 0
    num_shards: int  # number of readers that share the range; default 1
    max_examined: int  # OutOfRange after this number of samples, kept or not; 0: no limit

    # In place of a range: explicit samples. Views of the bank replace the first rows of w+, as
    # for all samples.
    indices: npt.ArrayLike | None  # [n], strictly ascending
    z: npt.ArrayLike | None  # float32 [n, z_dim], to be mapped and truncated
    w: npt.ArrayLike | None  # float32 [n, w_dim], the same for all rows of w+, not truncated
    w_plus: npt.ArrayLike | None  # float32 [n, num_ws, w_dim], not truncated

    # How to deliver
    outputs: Sequence[str] | None  # keys of codec.OUTPUTS; None: the image and every head
    codecs: Sequence[str] | None  # accepted ones of "raw", "zstd", "jpeg"; None: raw and zstd
    jpeg_quality: int  # 1 to 100; 0: 90
    max_message_bytes: int  # maximum size of a message; 0: 4 MiB minus 16 KiB for headers
    max_message_samples: int  # maximum number of samples in a message; 0: the engine's batch size
    weight: int  # share of the engine, relative to the client's other streams; 0: 1


# Options that hold for the whole stream and not for a part of it, that are no range, or that make
# parts themselves.
WHOLE_STREAM = (
    "count", "max_examined", "indices", "z", "w", "w_plus", "shard_index", "num_shards",
)  # fmt: skip
MAX_PARTS = 1_000_000  # of a range: their list is in memory
MAX_EDITS = 8  # directions of `edits`
_UINT32 = (
    "truncation_cutoff",
    "class_index",
    "views_per_object",
    "shard_index",
    "num_shards",
    "jpeg_quality",
    "max_message_bytes",
    "max_message_samples",
    "weight",
)
_UINT64 = ("seed", "start_index", "end_index", "count", "max_examined")
_TEXTS = ("model", "bundle_id", "learned_id")
_LATENTS: dict[str, tuple[pb.LatentSpace, int]] = {  # option: space, rank
    "z": (pb.LATENT_SPACE_Z, 2),
    "w": (pb.LATENT_SPACE_W, 2),
    "w_plus": (pb.LATENT_SPACE_W_PLUS, 3),
}


def query_from_options(options: StreamOptions) -> pb.SampleQuery:
    """The query with these options.

    Raises:
        TypeError: an option is unknown (the message has the most similar one), or of a wrong type.
        ValueError: options exclude each other, or a value is out of the range of the message.
    """
    _check_options(options, StreamOptions.__annotations__)
    query = pb.SampleQuery(
        model=options.get("model", ""),
        bundle_id=options.get("bundle_id", ""),
        learned_id=options.get("learned_id") or "",
        sampling=_sampling(options),
        filter=filter_from_options(options),
        start_index=options.get("start_index", 0),
        end_index=options.get("end_index", 0),
        count=options.get("count", 0),
        shard_index=options.get("shard_index", 0),
        num_shards=options.get("num_shards", 1),
        max_examined=options.get("max_examined", 0),
        outputs=[output_from_name(name) for name in _names("outputs", options)],
        accept_codecs=[codec_from_name(name) for name in _names("codecs", options)],
        jpeg_quality=options.get("jpeg_quality", 0),
        max_message_bytes=options.get("max_message_bytes", 0),
        max_message_samples=options.get("max_message_samples", 0),
        weight=options.get("weight", 0),
    )
    _check_edits(query)
    indices = options.get("indices")
    if indices is not None:
        query.indices.extend(_ascending(indices))
    for name, (space, rank) in _LATENTS.items():
        rows = options.get(name)
        if rows is not None:
            query.latents.space = space
            query.latents.rows.CopyFrom(_tensor_from_rows(name, rows, rank))
    return query


def can_reject(options: StreamOptions) -> bool:
    """Whether a stream with these options may leave out samples of its range.

    Raises TypeError and ValueError as `query_from_options`.
    """
    asked = query_from_options(options).filter
    return asked != pb.Filter(mode=pb.FILTER_MODE_NONE, filter_sets=asked.filter_sets)


def split_range(options: StreamOptions, parts: int) -> list[tuple[int, int]]:
    """Cuts a stream's range into consecutive ranges, so that each raw index is in one of them.

    Cuts are between objects: all views of an object are in one part, and with filter_sets the
    parts have the very samples of the whole. They differ by one object at most.

    Args:
        options: with an end_index, and none of WHOLE_STREAM.
        parts: number of ranges, 1 to MAX_PARTS; a stream of fewer objects has one for each.

    Returns:
        start_index and end_index of each part, in the order of the indices.

    Raises:
        TypeError, ValueError: options cannot be sent or have no range, or parts is out of range.
    """
    for name in WHOLE_STREAM:
        if options.get(name) is not None:
            raise ValueError(
                f"option {name!r} is for a whole stream; parts of a range have start_index and "
                "end_index alone: leave it out, or use Client.stream"
            )
    if whole_number("parts", parts) < 1:
        raise ValueError(f"parts {parts} is under 1; give at least one")
    query = query_from_options(options)
    start, end = query.start_index, query.end_index
    if end <= start:
        raise ValueError(
            f"end_index {end} is not over start_index {start}; parts are those of a range, so "
            "give an end"
        )
    views = max(1, query.sampling.views_per_object)
    first, last = start // views, -(-end // views)  # objects, the last one exclusive
    parts = min(parts, last - first)
    if parts > MAX_PARTS:
        raise ValueError(f"parts {parts} is over {MAX_PARTS}; give fewer and larger ones")
    inner = [(first + (last - first) * part // parts) * views for part in range(1, parts)]
    return list(pairwise([start, *inner, end]))


def takes_bank(options: SamplingOptions) -> bool:
    """Whether views come from the view bank, if the model has one."""
    view = options.get("view")
    return options.get("views_per_object", 1) > 1 if view is None else view != "drawn"


def is_weighted(options: Mapping[str, Any]) -> bool:
    """Whether samples of a stream with these options have weights other than 1."""
    return options.get("balance") is not None or bool(options.get("proposal"))


def sampling_from_options(options: SamplingOptions) -> pb.SamplingOptions:
    """The message of the sampling options; raises as query_from_options does."""
    _check_options(options, SamplingOptions.__annotations__)
    return _sampling(options)


def _sampling(options: SamplingOptions) -> pb.SamplingOptions:
    source = options.get("latent_source", "philox")
    if source not in LATENT_SOURCES:
        raise ValueError(
            f"latent_source {source!r} is unknown; choose from {', '.join(LATENT_SOURCES)}"
        )
    view_mode, view = _view(options.get("view"))
    edits = edits_from_option(options.get("edits")) or {}
    # A field that is None stays unset in the message.
    return pb.SamplingOptions(
        seed=options.get("seed", 0),
        latent_source=LATENT_SOURCES[source],
        truncation_psi=options.get("truncation_psi"),
        truncation_cutoff=options.get("truncation_cutoff"),
        class_index=options.get("class_index"),
        views_per_object=options.get("views_per_object", 1),
        view_mode=view_mode,
        view=view,
        edits=[pb.Edit(direction=name, strength=strength) for name, strength in edits.items()],
    )


def _view(view: int | str | None) -> tuple[pb.ViewMode, int]:
    if view is None:
        return pb.VIEW_MODE_UNSPECIFIED, 0
    if isinstance(view, str):
        if view not in VIEW_MODES:
            raise ValueError(
                f"view {view!r} is unknown; give a number or one of {', '.join(VIEW_MODES)}"
            )
        return VIEW_MODES[view], 0
    if not 0 <= whole_number("view", view) < 2**32:
        raise ValueError(f"view {view} is outside 0 to 2**32 - 1")
    return pb.VIEW_MODE_FIXED, whole_number("view", view)


def edits_from_option(edits: Mapping[str, float] | None) -> dict[str, float] | None:
    """The option `edits`, in ascending order of the names; None without any.

    Raises:
        TypeError: it is no dict of names and numbers.
        ValueError: it has no direction or too many, an empty name, or a strength that is not
            finite.
    """
    if edits is None:
        return None
    of_type("edits", edits, Mapping, "a dict of directions and strengths, as {'glasses': 1.5}")
    if not 1 <= len(edits) <= MAX_EDITS:
        raise ValueError(
            f"edits has {len(edits)} directions; give 1 to {MAX_EDITS}, or leave it out"
        )
    strengths = {}
    for name, strength in edits.items():
        if not isinstance(name, str):
            raise TypeError(f"edits has {name!r:.100}; give the names of directions")
        if not name or len(name) > MAX_CHARACTERS:
            raise ValueError(f"edits has the direction {name!r:.100}; give the name of one")
        if not math.isfinite(real_number(f"edits of {name!r:.100}", strength)):
            raise ValueError(
                f"edits of {name!r:.100} is {strength}; give a strength, such as 1.5 or -1"
            )
        strengths[name] = float(strength)
    return dict(sorted(strengths.items()))


def _check_edits(query: pb.SampleQuery) -> None:
    """Raises ValueError for options that are calibrated on samples without edits."""
    asked, given = query.filter, bool(query.sampling.edits)
    for name, present, instead in (
        ("keep_fraction", asked.mode == pb.FILTER_MODE_KEEP_FRACTION, "use max_uncertainty, or "),
        ("balance", bool(asked.balance) or asked.balance_classes, ""),
        ("keep_by", bool(asked.keep_by), ""),
    ):
        if given and present:
            raise ValueError(
                f"edits and {name} exclude each other: {name} is calibrated on samples without "
                f"edits; {instead}leave one of them out"
            )


def _check_options(options: Mapping[str, object], known: Collection[str]) -> None:
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise TypeError(f"option {name!r} is unknown; {hint}")
    for names, bits in ((_UINT32, 32), (_UINT64, 64)):
        for name in names:
            value = options.get(name)
            if value is not None and not 0 <= whole_number(name, value) < 2**bits:
                raise ValueError(f"{name} {value} is outside 0 to 2**{bits} - 1")
    if options.get("truncation_psi") is not None:
        real_number("truncation_psi", options["truncation_psi"])
    for name in _TEXTS:
        of_type(name, options.get(name), str, "text")
    of_type("proposal", options.get("proposal"), str, "the name of a proposal")
    of_type("filter_sets", options.get("filter_sets"), bool, "True or False")
    given = [name for name in ("indices", *_LATENTS) if options.get(name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; give one")


def _names(option: str, options: StreamOptions) -> Sequence[str]:
    names = cast(Mapping[str, object], options).get(option) or ()
    if isinstance(names, str):
        raise TypeError(f"{option} is {names!r}; give a list, for example [{names!r}]")
    of_type(option, names, Collection, "a list of names")
    return cast(Sequence[str], names)


def _ascending(indices: npt.ArrayLike) -> list[int]:
    rows = uint64_from_indices(indices)
    if not len(rows):
        raise ValueError("indices is empty; leave it out to stream a range")
    if np.any(rows[1:] <= rows[:-1]):
        raise ValueError("indices must be strictly ascending; give np.unique(indices)")
    listed: list[int] = rows.tolist()
    return listed


def _tensor_from_rows(name: str, rows: object, rank: int) -> pb.Tensor:
    try:
        array = np.asarray(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if array.ndim != rank or not array.size:
        raise ValueError(
            f"{name} has shape {list(array.shape)}; give {rank} dimensions and at least one row"
        )
    return tensor_from_array(array)


def check_batch_size(batch_size: int) -> None:
    """Raises TypeError for no integer, ValueError for a batch size under 1."""
    if whole_number("batch_size", batch_size) < 1:
        raise ValueError(f"batch_size {batch_size} is under 1; give at least one")
