"""Which raw indices a query's reader takes, and how the rest of a query is asked for.

A shard s of S takes whole objects o = i div V with o mod S = s. Of those, the m-th is
o = s + S m, so the n sub-shards with m mod n = j are the shards s + S j of S n: n calls
split one reader's share without overlap, whatever V is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
