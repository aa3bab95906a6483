"""What a stream that shards itself may be asked for, as `labelmint.torch.LabelStream` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labelmint.arguments import check_batch_size, real_number
from labelmint.groups import query_for_groups
from labelmint.options import StreamOptions, query_from_options

# The first is not shard-invariant, the others are no range.
_REFUSED = ("count", "max_examined", "indices", "z", "w", "w_plus", "shard_index", "num_shards")


def check_sharded(
    options: StreamOptions,
    batch_size: int,
    group_views: bool,
    ignore_above: float | None,
    transform: Callable[..., Any] | None,
) -> None:
    """Raises TypeError, ValueError for what cannot be sharded or sent, or contradicts itself."""
    for name in _REFUSED:
        if options.get(name) is not None:
            raise ValueError(f"option {name!r} is not for LabelStream; use Client.stream")
    check_batch_size(batch_size)
    if transform is not None and not callable(transform):
        raise TypeError(f"transform is {transform!r}; give a function of a LabelBatch")
    if ignore_above is not None and not real_number("ignore_above", ignore_above) >= 0:
        raise ValueError(f"ignore_above {ignore_above} is under 0; give a limit from 0 up")
    query = query_from_options(options)
    if ignore_above is not None and "mask" not in (options.get("outputs") or ["mask"]):
        raise ValueError(f"ignore_above {ignore_above} is for masks; outputs has no mask; add it")
    if group_views:
        query_for_groups(query, batch_size)
