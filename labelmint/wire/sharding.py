"""Sharding of a query by raw index, and samples as sets: all views of an object side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from labelmint.batch import FIELDS, Batch
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb


def subshards(query: pb.SampleQuery, streams: int) -> list[pb.SampleQuery]:
    """Splits a query into so many that share its samples; explicit rows are not split."""
    if streams == 1 or query.indices or query.HasField("latents"):
        return [query]
    parts = []
    for part_index in range(streams):
        part = pb.SampleQuery()
        part.CopyFrom(query)
        part.num_shards = _num_shards(query) * streams
        part.shard_index = query.shard_index + _num_shards(query) * part_index
        part.max_examined = -(-query.max_examined // streams)
        parts.append(part)
    return parts


def outsiders(query: pb.SampleQuery, indices: UInt64s) -> npt.NDArray[np.bool_]:
    """Marks those of indices, [n], that are not the reader's."""
    if query.indices:
        return ~np.isin(indices, np.array(query.indices, np.uint64))
    objects = indices // np.uint64(_views(query))
    foreign: npt.NDArray[np.bool_] = objects % np.uint64(_num_shards(query)) != query.shard_index
    return foreign


def members_before(query: pb.SampleQuery, index: int) -> int:
    """How many raw indices under index the reader takes, counted from index 0."""
    if query.indices:
        return int(np.searchsorted(np.array(query.indices, np.uint64), np.uint64(index)))
    views, shards, shard = _views(query), _num_shards(query), query.shard_index
    whole, view = divmod(index, views)
    objects = (whole + shards - 1 - shard) // shards  # of the reader, under whole
    return objects * views + (view if whole % shards == shard else 0)


def resumed(
    query: pb.SampleQuery,
    next_index: int,
    received: int,
    bundle_id: str,
) -> pb.SampleQuery | None:
    """What is left of a query after `received` samples under next_index; None for nothing."""
    rest = pb.SampleQuery()
    rest.CopyFrom(query)
    rest.bundle_id = bundle_id
    if query.indices:
        del rest.indices[: members_before(query, next_index)]
    else:
        rest.start_index = next_index
    if query.count:
        rest.count = query.count - received
    if query.max_examined:
        examined = members_before(query, next_index) - members_before(query, query.start_index)
        rest.max_examined = max(1, query.max_examined - examined)
    used_up = (
        (query.count and not rest.count)
        or (query.indices and not rest.indices)
        or (query.end_index and next_index >= query.end_index)
        or (query.HasField("latents") and next_index >= query.latents.rows.shape[0])
    )
    return None if used_up else rest


def _views(query: pb.SampleQuery) -> int:
    return max(1, query.sampling.views_per_object)


def _num_shards(query: pb.SampleQuery) -> int:
    return max(1, query.num_shards)


def query_for_groups(query: pb.SampleQuery, batch_size: int) -> tuple[pb.SampleQuery, int]:
    """The query of whole objects, and their views; a range begins at its first whole object.

    Raises ValueError when the query or the batch would cut one.
    """
    views = query.sampling.views_per_object
    if views < 2:
        raise ValueError(f"views_per_object {views} gives no groups; give 2 or more")
    filtered = query.filter.mode in (
        pb.FILTER_MODE_KEEP_FRACTION,
        pb.FILTER_MODE_MAX_UNCERTAINTY,
    )
    if filtered and not query.filter.filter_sets:
        raise ValueError("group_views with a filter needs filter_sets=True, so that sets are whole")
    numbers = {"batch_size": batch_size, "count": query.count, "end_index": query.end_index}
    for name, value in numbers.items():
        if value % views:
            raise ValueError(f"{name} {value} is no multiple of {views}, the views of an object")
    if not _whole(np.array(query.indices, np.uint64), views):
        raise ValueError(f"indices are not whole objects of {views} views; list all their views")
    whole = pb.SampleQuery()
    whole.CopyFrom(query)
    whole.start_index = -(-query.start_index // views) * views
    return whole, views


def grouped_batch(batch: Batch, views: int) -> Batch:
    """The batch with axes [objects, views] in place of [n]; the samples must be whole objects.

    Raises ValueError when they are not.
    """
    if not _whole(batch.indices, views):
        raise ValueError(
            f"samples {batch.indices.tolist()[:8]}... are not whole objects of {views} views; "
            "group_views needs all of them: check `skip`, and the server's release"
        )
    given = {name: getattr(batch, name) for name in FIELDS.values()}
    arrays = {
        name: array.reshape(-1, views, *array.shape[1:])
        for name, array in given.items()
        if array is not None
    }
    return replace(batch, indices=batch.indices.reshape(-1, views), **arrays)


def _whole(indices: UInt64s, views: int) -> bool:
    if len(indices) % views or not len(indices):
        return not len(indices)
    starts = indices[::views] // np.uint64(views) * np.uint64(views)
    sets = starts[:, None] + np.arange(views, dtype=np.uint64)
    return np.array_equal(indices, sets.ravel())
