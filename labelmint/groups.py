"""Samples as sets: all views of an object side by side.

Enter: a query, then batches of whole objects. Leave: the query that gives such batches, and
batches with axes [objects, views].
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labelmint.batch import FIELDS, Batch
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb


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
