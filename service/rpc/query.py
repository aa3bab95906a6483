"""SampleQuery -> Query: checks every field and resolves the request against one model."""

from dataclasses import replace

import numpy as np

from engines.edits import shift_from_query
from engines.learned import learned_id_of_query
from engines.sampling import LatentOptions
from engines.sampling_request import (
    can_reject,
    has_balance,
    is_weighted,
    max_uncertainty_from_filter,
    options_from_proto,
    proposal_from_filter,
    selection_from_filter,
)
from labelmint.latents import MAX_MT19937_INDEX
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import applied_by_query
from service.config import DEFAULT_MESSAGE_BYTES, MIN_MESSAGE_BYTES, ServerLimits
from service.encoding import over_limit
from service.errors import BadRequest, FailedPrecondition
from service.models import ServedModel
from service.query import MESSAGE_OVERHEAD_BYTES, LatentRows, Query
from service.rpc.latents import latents_from_proto
from service.rpc.outputs import jpeg_quality_from_proto, outputs_from_proto
from service.sampler import END_OF_INDICES, IndexRange, Plan, plan_from_indices, plan_from_range
from service.screen import ScreenedPlan

UNMET_LIMIT = 10_000  # samples, of which a predicate should meet one


def query_from_proto(proto: pb.SampleQuery, model: ServedModel, limits: ServerLimits) -> Query:
    """A checked query with all defaults filled in.

    Raises ServiceError, EngineError, NotCalibrated; messages name the value, limit and fix.
    """
    manifest = model.bundle.manifest
    if proto.bundle_id not in ("", manifest.bundle_id):
        raise FailedPrecondition(
            f"bundle_id is {proto.bundle_id}, {model.name} is served from {manifest.bundle_id}; "
            "start a new stream without bundle_id, or ask a server that has that bundle"
        )
    options = options_from_proto(proto.sampling, model.bundle)
    latents = None
    if proto.HasField("latents"):
        _check_latents_alone(proto, options)
        latents = latents_from_proto(proto.latents, manifest.generator, limits.max_explicit_rows)
    plan = _plan(proto, options, latents, limits)
    proposal = proposal_from_filter(proto.filter, model.bundle, options)
    screen = None if proposal is None else ScreenedPlan(plan, proposal)
    query = Query(
        options=options,
        latents=latents,
        plan=screen or plan,
        screen=screen,
        max_uncertainty=max_uncertainty_from_filter(proto.filter, model.bundle, options),
        selection=selection_from_filter(proto.filter, model.bundle, options),
        shift=shift_from_query(proto, model.bundle, options),
        applied=applied_by_query(proto),
        unmet_limit=UNMET_LIMIT if proto.filter.where and not _has_end(proto) else 0,
        count=proto.count,
        weight=_weight(proto, limits),
        outputs=outputs_from_proto(
            proto, model.outputs, options.view_mode != "drawn", is_weighted(proto.filter)
        ),
        jpeg_quality=jpeg_quality_from_proto(proto),
        max_message_bytes=_max_message_bytes(proto, limits),
        max_message_samples=_max_message_samples(proto, model, limits),
        bundle_id=manifest.bundle_id,
        learned_id=learned_id_of_query(proto, model.bundle, options),
    )
    _check_one_sample_fits(query)
    return query


def bounded_query_from_proto(
    proto: pb.SampleQuery, model: ServedModel, limits: ServerLimits
) -> tuple[Query, int]:
    """The query of a call with one answer, and the most samples it can deliver.

    Raises as query_from_proto, and BadRequest when the answer could exceed a message.
    """
    if not (proto.count or proto.end_index or proto.indices or proto.HasField("latents")):
        raise BadRequest(
            "count, end_index, indices and latents are all empty; GenerateSamples needs one of "
            "them as a bound, StreamSamples does not"
        )
    limit = limits.max_generate_examined
    bounded = pb.SampleQuery()
    bounded.CopyFrom(proto)
    bounded.max_examined = min(proto.max_examined or limit, limit)
    query = query_from_proto(bounded, model, limits)
    samples = query.plan.examined(query.plan.stop)
    samples = min(samples, query.count) if query.count else samples
    if samples > limits.max_message_samples:
        raise BadRequest(
            f"the answer can have {samples} samples, the limit is {limits.max_message_samples}; "
            "ask for fewer, or use StreamSamples"
        )
    size = MESSAGE_OVERHEAD_BYTES + samples * query.sample_message_bytes
    if size > query.max_message_bytes:
        raise BadRequest(
            f"the answer can have {samples} samples and {size} bytes, max_message_bytes is "
            f"{query.max_message_bytes}; ask for fewer samples or outputs, or use StreamSamples"
        )
    return replace(query, max_message_samples=max(samples, 1)), samples


def _plan(
    proto: pb.SampleQuery, options: LatentOptions, latents: LatentRows | None, limits: ServerLimits
) -> Plan:
    whole_objects = can_reject(proto.filter) and proto.filter.filter_sets
    if proto.indices:
        return _plan_from_indices(proto, options, whole_objects, limits)
    if latents is not None:
        rows = len(latents.rows)
        if proto.start_index > rows:
            raise BadRequest(
                f"start_index is {proto.start_index}; latents has {rows} rows, it must be in "
                f"[0, {rows}]"
            )
        return plan_from_range(IndexRange(proto.start_index, rows, max_examined=proto.max_examined))
    end, end_reason = _end(proto, options)
    shards = proto.num_shards or 1
    if proto.shard_index >= shards:
        raise BadRequest(
            f"shard_index is {proto.shard_index}; it must be under num_shards, which is {shards}"
        )
    plan = plan_from_range(
        IndexRange(
            start=proto.start_index,
            end=end,
            shard=proto.shard_index,
            shards=shards,
            views=options.views_per_object,
            whole_objects=whole_objects,
            max_examined=proto.max_examined,
            end_reason=end_reason,
        )
    )
    _check_count(proto, plan)
    return plan


def _plan_from_indices(
    proto: pb.SampleQuery, options: LatentOptions, whole_objects: bool, limits: ServerLimits
) -> Plan:
    _check_alone(proto, "indices", start_index=proto.start_index)
    if len(proto.indices) > limits.max_explicit_indices:
        raise BadRequest(
            f"indices has {len(proto.indices)} entries; the limit is "
            f"{limits.max_explicit_indices}, send more in several requests"
        )
    indices = np.array(proto.indices, np.uint64)
    falls = np.flatnonzero(indices[1:] <= indices[:-1])
    if len(falls):
        at = int(falls[0]) + 1
        raise BadRequest(
            f"indices[{at}] is {indices[at]} after {indices[at - 1]}; they must be strictly "
            "ascending"
        )
    views = options.views_per_object
    end = MAX_MT19937_INDEX if options.latent_source == "mt19937" else END_OF_INDICES
    end = end // views * views if whole_objects else end
    if indices[-1] >= end:
        raise BadRequest(f"indices has {indices[-1]}; each must be under {end}")
    return plan_from_indices(indices, views, whole_objects, proto.max_examined)


def _has_end(proto: pb.SampleQuery) -> bool:
    """Whether the caller said how far to search."""
    bounds = proto.end_index, proto.max_examined, proto.indices, proto.HasField("latents")
    return any(bounds)


def _end(proto: pb.SampleQuery, options: LatentOptions) -> tuple[int, str]:
    """End of the raw range, exclusive, and why it is before the requested end, or ""."""
    if proto.end_index and proto.end_index < proto.start_index:
        raise BadRequest(
            f"end_index is {proto.end_index}; it must be at least start_index, "
            f"{proto.start_index}, or 0 for no end"
        )
    if options.latent_source != "mt19937":
        return proto.end_index or END_OF_INDICES, ""
    if max(proto.start_index, proto.end_index) > MAX_MT19937_INDEX:
        raise BadRequest(
            f"start_index is {proto.start_index} and end_index {proto.end_index}; with MT19937 "
            f"latents neither may exceed {MAX_MT19937_INDEX}: use philox"
        )
    if proto.end_index:
        return proto.end_index, ""
    return MAX_MT19937_INDEX, f"MT19937 latents end at index {MAX_MT19937_INDEX}; use philox"


def _check_count(proto: pb.SampleQuery, plan: Plan) -> None:
    """Raises BadRequest when an endless range has fewer than `count` indices."""
    left = plan.examined(plan.stop)
    if not proto.end_index and not plan.end_reason and proto.count > left:
        raise BadRequest(
            f"count is {proto.count}; from start_index {proto.start_index} on there are only "
            f"{left} indices under 2^64 - 1 for this shard; lower count or start_index"
        )


def _check_latents_alone(proto: pb.SampleQuery, options: LatentOptions) -> None:
    """Raises BadRequest when a field is set that explicit latents exclude."""
    _check_alone(proto, "latents", indices=len(proto.indices))
    if proto.filter.mode == pb.FILTER_MODE_KEEP_FRACTION:
        raise BadRequest(
            f"latents is set and so is keep_fraction ({proto.filter.keep_fraction:g}); calibration "
            "holds for drawn latents only: use max_uncertainty or no filter"
        )
    if has_balance(proto.filter):
        raise BadRequest(
            "latents is set and so is balance; calibration holds for drawn latents only: leave "
            "one of them out"
        )
    if proto.filter.proposal:
        raise BadRequest(
            f"latents is set and so is proposal ({proto.filter.proposal:.100}); a proposal chooses "
            "among drawn latents: leave one of them out"
        )
    if options.views_per_object != 1:
        raise BadRequest(
            f"views_per_object is {options.views_per_object}; with latents it must be 0 or 1: ask "
            "for one view of the bank at a time, by its code"
        )


def _check_alone(proto: pb.SampleQuery, field: str, **more: int) -> None:
    """Raises BadRequest when a range, a shard or one of `more` is set beside `field`."""
    shards = proto.num_shards if proto.num_shards > 1 else 0
    fields = {"end_index": proto.end_index, "shard_index": proto.shard_index, "num_shards": shards}
    for name, value in {**fields, **more}.items():
        if value:
            raise BadRequest(f"{field} is set and so is {name} ({value}); leave one of them out")


def _max_message_samples(proto: pb.SampleQuery, model: ServedModel, limits: ServerLimits) -> int:
    if proto.max_message_samples > limits.max_message_samples:
        raise BadRequest(
            f"max_message_samples is {proto.max_message_samples}; the limit is "
            f"{limits.max_message_samples}, or 0 for an engine batch"
        )
    return proto.max_message_samples or min(model.batch_size, limits.max_message_samples)


def _weight(proto: pb.SampleQuery, limits: ServerLimits) -> int:
    if proto.weight > limits.max_weight:
        raise BadRequest(
            f"weight is {proto.weight}; it must be in [1, {limits.max_weight}], or 0 for 1"
        )
    return proto.weight or 1


def _max_message_bytes(proto: pb.SampleQuery, limits: ServerLimits) -> int:
    default = min(DEFAULT_MESSAGE_BYTES, limits.max_message_bytes)
    given = proto.max_message_bytes or default
    if not MIN_MESSAGE_BYTES <= given <= limits.max_message_bytes:
        raise BadRequest(
            f"max_message_bytes is {given}; it must be in [{MIN_MESSAGE_BYTES}, "
            f"{limits.max_message_bytes}], or 0 for {default}"
        )
    return given


def _check_one_sample_fits(query: Query) -> None:
    """Refuses at once when the RAW outputs of one sample exceed a message.

    Whether compressed outputs fit is only known once they are encoded.
    """
    raw_bytes = sum(o.raw_bytes for o in query.outputs if o.codec == pb.CODEC_RAW)
    if raw_bytes > query.max_message_bytes:
        raise over_limit(query, raw_bytes)
