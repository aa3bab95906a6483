"""Which raw indices a reader takes: shards of a query, what is left of it, and whole objects.

Shard s of S takes every raw index i whose object i div V has (i div V) mod S = s, where V is
views_per_object. Queries enter and leave; nothing is sent from here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from labelmint.batch import FIELDS, Batch
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb

END_OF_INDICES = 2**64 - 1  # exclusive, so that next_index always fits into 64 bits


def subshards(query: pb.SampleQuery, streams: int) -> list[pb.SampleQuery]:
    """Splits a query into `streams` queries that share its samples.

    Explicit indices and latents are not split. Shard s of S becomes the shards s, s + S, s + 2S
    and so on, of S * streams.
    """
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


def foreign_indices(query: pb.SampleQuery, indices: UInt64s) -> npt.NDArray[np.bool_]:
    """Marks, [n], those of the indices that this query's reader does not take."""
    if query.indices:
        return ~np.isin(indices, np.array(query.indices, np.uint64))
    objects = indices // np.uint64(_views(query))
    foreign: npt.NDArray[np.bool_] = objects % np.uint64(_num_shards(query)) != query.shard_index
    return foreign


def shard_indices_before(query: pb.SampleQuery, index: int) -> int:
    """Number of raw indices under `index` that the reader takes, counted from index 0."""
    if query.indices:
        return int(np.searchsorted(np.array(query.indices, np.uint64), np.uint64(index)))
    views, shards, shard = _views(query), _num_shards(query), query.shard_index
    raw_objects, view = divmod(index, views)  # complete objects under index, of all shards
    objects = (raw_objects + shards - 1 - shard) // shards  # those of the reader
    return objects * views + (view if raw_objects % shards == shard else 0)


def shard_indices_between(query: pb.SampleQuery, start: int, stop: int) -> int:
    """Number of raw indices in [start, stop) that the reader takes."""
    return shard_indices_before(query, stop) - shard_indices_before(query, start)


def end_of_query(query: pb.SampleQuery) -> int:
    """The end of the query's raw indices, exclusive; END_OF_INDICES if it has none of its own."""
    if query.indices:
        return query.indices[-1] + 1
    if query.HasField("latents"):
        return query.latents.rows.shape[0]
    return query.end_index or END_OF_INDICES


def remaining_query(
    query: pb.SampleQuery,
    next_index: int,
    received: int,
    bundle_id: str,
    learned_id: str = "",
) -> pb.SampleQuery | None:
    """The query that resumes at next_index after `received` samples; None when nothing is left.

    It is pinned to bundle_id, and to learned_id.
    """
    rest = pb.SampleQuery()
    rest.CopyFrom(query)
    rest.bundle_id, rest.learned_id = bundle_id, learned_id
    if query.indices:
        del rest.indices[: shard_indices_before(query, next_index)]
    else:
        rest.start_index = next_index
    if query.count:
        rest.count = query.count - received
    if query.max_examined:
        examined = shard_indices_between(query, query.start_index, next_index)
        rest.max_examined = max(1, query.max_examined - examined)
    elif query.filter.where and received:
        rest.max_examined = END_OF_INDICES  # a server counts those that do not meet it anew
    end = end_of_query(query)
    if query.filter.filter_sets:  # an object that would reach past the last index does not exist
        end = min(end, END_OF_INDICES // _views(query) * _views(query))
    counted = query.count and not rest.count
    return None if counted or shard_indices_between(query, next_index, end) <= 0 else rest


def query_for_groups(query: pb.SampleQuery, batch_size: int) -> tuple[pb.SampleQuery, int]:
    """The query of whole objects, and their number of views, for group_views.

    A range that begins within an object begins at the next one. Raises ValueError when the query
    or the batch would cut an object.
    """
    views = query.sampling.views_per_object
    if views < 2:
        raise ValueError(f"views_per_object {views} gives no groups; give 2 or more")
    modes = (pb.FILTER_MODE_KEEP_FRACTION, pb.FILTER_MODE_MAX_UNCERTAINTY)
    if query.filter.balance or query.filter.balance_classes:
        raise ValueError(
            "group_views and balance exclude each other: a coin is tossed for a sample, not for "
            "all views of an object; leave one out"
        )
    filtered = query.filter.mode in modes or query.filter.where or query.filter.proposal
    if filtered and not query.filter.filter_sets:
        raise ValueError(
            "group_views with a filter needs filter_sets=True, which keeps objects whole"
        )
    numbers = {"batch_size": batch_size, "count": query.count, "end_index": query.end_index}
    for name, value in numbers.items():
        if value % views:
            raise ValueError(
                f"{name} {value} is no multiple of {views}, the views of an object; give one"
            )
    if not _are_whole_objects(np.array(query.indices, np.uint64), views):
        raise ValueError(f"indices are not whole objects of {views} views; list all their views")
    whole = pb.SampleQuery()
    whole.CopyFrom(query)
    whole.start_index = -(-query.start_index // views) * views
    return whole, views


def grouped_batch(batch: Batch, views: int) -> Batch:
    """The batch with axes [objects, views] in place of [n].

    Raises ValueError when its samples are not whole objects.
    """
    if not _are_whole_objects(batch.indices, views):
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


def _are_whole_objects(indices: UInt64s, views: int) -> bool:
    """Whether the indices are all views of their objects, in order; true of no indices."""
    if len(indices) % views or not len(indices):
        return not len(indices)
    starts = indices[::views] // np.uint64(views) * np.uint64(views)
    objects = starts[:, None] + np.arange(views, dtype=np.uint64)
    return np.array_equal(indices, objects.ravel())


def _views(query: pb.SampleQuery) -> int:
    return max(1, query.sampling.views_per_object)


def _num_shards(query: pb.SampleQuery) -> int:
    return max(1, query.num_shards)
