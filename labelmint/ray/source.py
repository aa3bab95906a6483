"""A stream as a source of Ray Data: one read task for each part of its range.

Enter: a target and options of a stream with an end. Leave: blocks with the columns of
`Batch.columns`. Options are pinned when the source is made, so that a task that Ray runs again,
on whatever node, gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labelmint.arguments import whole_number
from labelmint.client import Client
from labelmint.errors import MalformedMessage, MissingExtra
from labelmint.extras import install_from_extra
from labelmint.model import Column, Model
from labelmint.options import StreamOptions, can_reject, split_range
from labelmint.wire.retries import Patience

try:
    import pyarrow as pa
    from ray.data import DataContext, Datasource, ReadTask
    from ray.data.block import Block, BlockAccessor, BlockMetadata
except ImportError as error:
    raise MissingExtra(f"labelmint.ray needs {error.name}: {install_from_extra('ray')}") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

BLOCK_BYTES = 4 << 20  # of the arrays that a task hands to Ray at once, if a sample is smaller
MAX_ROWS = 1024  # of these
PREFETCH_BYTES = 16 << 20  # a task receives this far ahead; the client's own default is for one
# A task that finds no server was preceded by a driver that did: it waits as a stream would.
PATIENCE = Patience(connect_s=60.0)
MAX_TASKS = 1 << 16  # the driver makes each, and Ray keeps account of it
INDICES_PER_PART = 1024  # raw indices of a part, if neither the caller nor Ray says more


class LabelSource(Datasource):
    """Samples of a range for `ray.data.read_datasource`, in ascending order of the index.

    Columns are `index` (uint64), and those requested of `image` (uint8 [H, W, 3]), `mask` (uint8
    [h, w], class ids), `keypoints` (float32 [K, 3]), `depth` (float16 [h, w]), `uncertainty`,
    `uncertainty_map`, `w`, `view` and `camera`.

    Attributes:
        options: the pinned options: any `Client` gets the same samples with them.
        model: the model that makes the samples.
    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        shards: int | None = None,
        client: Mapping[str, Any] | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        """Asks the server for the model, and for the threshold of keep_fraction.

        Args:
            target: server or its replicas, see `labelmint.Client`; every node must reach it. None:
                LABELMINT_TARGET, of the driver's environment and of each worker's.
            shards: number of read tasks. A lost one is read again as a whole, so many small ones
                are better than few; they are never more than the range has objects, nor than
                65,536. None: one for 1,024 raw indices, or as many as Ray asks for if that is more.
            client: arguments of `labelmint.Client` besides the target, for every task. By default
                a task waits for a server for a minute, and receives 16 MiB ahead.
            options: see `labelmint.options.StreamOptions`, with end_index, and without count,
                max_examined, explicit indices and latents, shard_index and num_shards.

        Raises:
            TypeError, ValueError: options are unknown, contradict each other or have no end.
            LabelmintError: as `Client.pin`.
        """
        Datasource.__init__(self)
        if shards is not None and not 1 <= whole_number("shards", shards) <= MAX_TASKS:
            raise ValueError(f"shards {shards} is outside 1 to {MAX_TASKS}; give a number within")
        split_range(options, 1)  # what cannot be split is refused before anything is sent
        self._arguments = _Arguments({"target": target, **(client or {})})
        self._shards = shards
        with self._arguments.client() as connected:
            self.options = connected.pin(**options)
            self.model: Model = connected.model(self.options["model"])
        self._columns = self.model.schema(**self.options)
        self._sample_bytes = sum(_bytes_of_column(column) for column in self._columns.values())

    def get_name(self) -> str:
        """Name of the read tasks."""
        return "Labels"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all samples, as if the filter rejected none."""
        return self._indices(split_range(self.options, 1)) * self._sample_bytes

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """A task for each part of the range; see `Datasource.get_read_tasks`."""
        indices = self._indices(split_range(self.options, 1))
        shards = self._shards or max(parallelism, -(-indices // INDICES_PER_PART))
        shards = min(shards, MAX_TASKS)  # a range of 2**40 indices is no reason for 2**30 tasks
        filtered = can_reject(self.options)
        schema = _no_rows(self._columns).schema
        tasks = []
        for number, (start, end) in enumerate(split_range(self.options, shards)):
            metadata = BlockMetadata(
                num_rows=None if filtered else end - start,
                size_bytes=(end - start) * self._sample_bytes,
                input_files=None,
                exec_stats=None,
            )
            part: StreamOptions = {**self.options, "start_index": start, "end_index": end}
            tasks.append(ReadTask(self._reader(number, part), metadata, schema, per_task_row_limit))
        return tasks

    def _reader(self, number: int, part: StreamOptions) -> Any:
        arguments = self._arguments
        columns, rows = self._columns, max(1, min(MAX_ROWS, BLOCK_BYTES // self._sample_bytes))

        def read_labels() -> Iterator[Block]:
            return _blocks(arguments, number, part, columns, rows)

        return read_labels

    @staticmethod
    def _indices(ranges: Sequence[tuple[int, int]]) -> int:
        return sum(end - start for start, end in ranges)


class _Arguments:
    """Arguments of every task's client. A token is among them, and Ray prints what it pickles when
    it cannot: so this prints as its type alone."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = dict(given)

    def client(self, **defaults: Any) -> Client:
        return Client(**{**defaults, **self._given})


def _blocks(
    arguments: _Arguments,
    number: int,
    part: StreamOptions,
    columns: dict[str, Column],
    rows: int,
) -> Iterator[Block]:
    """The samples of part `number`, `rows` at a time; one that the filter empties has a block,
    too."""
    empty = True
    with arguments.client(prefetch_bytes=PREFETCH_BYTES, patience=PATIENCE) as client:
        for batch in client.stream(rows, first_target=number, **part):
            empty = False
            found = batch.columns()
            _check(found, columns)
            yield _block(found)
    if empty:
        yield _no_rows(columns)


def _check(found: Mapping[str, np.ndarray[Any, Any]], columns: Mapping[str, Column]) -> None:
    """Raises MalformedMessage for arrays that are not as the driver was told, with which the blocks
    of one data set would have two schemas."""
    for name, column in columns.items():
        array = found.get(name)
        if array is None or array.dtype != column.dtype or array.shape[1:] != column.shape:
            what = "none" if array is None else f"{array.dtype} {list(array.shape[1:])}"
            raise MalformedMessage(
                f"the server sends {what} as {name}; it described the same bundle with "
                f"{column.dtype} {list(column.shape)} when the data set was made"
            )


def _block(columns: Mapping[str, np.ndarray[Any, Any]]) -> pa.Table:
    return BlockAccessor.batch_to_block(dict(columns))


def _no_rows(columns: Mapping[str, Column]) -> pa.Table:
    # A row that is cut off again: without one, Ray would take arrays for pickled objects.
    one = {name: np.zeros((1, *column.shape), column.dtype) for name, column in columns.items()}
    return _block(one).slice(0, 0)


def _bytes_of_column(column: Column) -> int:
    return column.dtype.itemsize * int(np.prod(column.shape))
