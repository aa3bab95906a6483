"""A stream as an iterable dataset of Hugging Face `datasets`.

Enter: options of a stream with an end. Leaves: a `datasets.IterableDataset` of single samples, in
shards that `datasets` splits over workers and nodes; its state_dict resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labelmint.batch import INDEX, Batch
from labelmint.client import Client
from labelmint.errors import MissingExtra
from labelmint.extras import install_from_extra
from labelmint.options import MAX_PARTS, StreamOptions, query_from_options, split_range

try:
    import datasets
except ImportError as error:
    raise MissingExtra(f"labelmint.hub needs {error.name}: {install_from_extra('hf')}") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

BATCH = 16  # samples of a message


def iterable_dataset(
    target: str | Sequence[str] | None = None,
    *,
    samples_per_shard: int = 1024,
    client: dict[str, Any] | None = None,
    **options: Unpack[StreamOptions],
) -> datasets.IterableDataset:
    """The samples of a range as dicts, in ascending order of the index within a worker.

    A row has `index`, and those that are requested of `image` (uint8 [H, W, 3]), `mask` (uint8
    [h, w], class ids), `keypoints` (float32 [K, 3]), `depth` (float16 [h, w]), `uncertainty`,
    `uncertainty_map`, `w`, `view` and `camera`, as numpy arrays that may be written to.

    Args:
        target: server, see `labelmint.Client`.
        samples_per_shard: raw indices of a shard. The state of an iteration is a shard and a
            number of rows; a resumed one draws the rows of that shard once more.
        client: arguments of `labelmint.Client` besides the target, for every reader.
        options: see `labelmint.options.StreamOptions`, with end_index, and without count,
            max_examined, explicit indices and latents, shard_index and num_shards.

    Raises:
        TypeError, ValueError: options are unknown, contradict each other or have no end.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard is {samples_per_shard}; give at least 1")
    query = query_from_options(options)
    views = max(1, query.sampling.views_per_object)
    objects = -(-query.end_index // views) - query.start_index // views
    parts = -(-objects // -(-samples_per_shard // views))
    if parts > MAX_PARTS:
        raise ValueError(
            f"{query.end_index - query.start_index} raw indices are over {MAX_PARTS} shards of "
            f"{samples_per_shard}; raise samples_per_shard, or give a smaller end_index"
        )
    shards = split_range(options, max(1, parts))
    arguments = {"target": target, **(client or {})}
    return datasets.IterableDataset.from_generator(
        _rows, gen_kwargs={"shards": shards, "arguments": arguments, "options": dict(options)}
    )


def _rows(
    shards: list[tuple[int, int]], arguments: dict[str, Any], options: StreamOptions
) -> Iterator[dict[str, Any]]:
    with Client(**arguments) as client:
        for start, end in shards:
            part: StreamOptions = {**options, "start_index": start, "end_index": end}
            for batch in client.stream(BATCH, **part):
                yield from _rows_of_batch(batch)


def _rows_of_batch(batch: Batch) -> Iterator[dict[str, Any]]:
    columns = {name: values.copy() for name, values in batch.columns().items()}
    for n, index in enumerate(columns.pop(INDEX).tolist()):
        yield {INDEX: index, **{name: values[n] for name, values in columns.items()}}
