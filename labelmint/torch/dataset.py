"""A stream as a dataset of PyTorch: whole batches, sharded by rank and worker, resumable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from labelmint.batch import Batch
from labelmint.client import Client, check_settings
from labelmint.codec import Array
from labelmint.errors import MissingExtra
from labelmint.options import (
    StreamOptions,
    check_batch_size,
    query_from_options,
    real_number,
    takes_bank,
)
from labelmint.torch.position import (
    Layer,
    Position,
    merged,
    merged_states,
    position_of_batch,
    position_of_stream,
    state_of_stream,
)
from labelmint.wire.channel import Tls
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.replicas import targets_from_argument
from labelmint.wire.retries import Patience
from labelmint.wire.sharding import query_for_groups

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise MissingExtra("labelmint.torch needs torch; pip install 'labelmint[torch]'") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Item(NamedTuple):
    """What the loop gets, and where the reader is then."""

    batch: Any
    position: Position
    nbytes: int = 0  # one is held ready, however large


class Made:
    """A source of batches for a prefetch."""

    def __init__(self, client: Client, make: Callable[[Client], Iterator[Item]]) -> None:
        self._client, self._make = client, make

    def messages(self) -> Iterator[Item]:
        return self._make(self._client)

    def watch(self) -> None:
        """The stream within watches its servers itself."""

    def close(self) -> None:
        self._client.close()


def rank_of_launcher(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """These two where they are given, else the environment's RANK and WORLD_SIZE, else 0 of 1.

    Raises ValueError when they are no rank and its world.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank {rank} and world_size {world_size} go together; give both")
    if rank is None or world_size is None:
        rank, world_size = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is outside 0 to world_size - 1 = {world_size - 1}")
    return rank, world_size


def _from_environment(name: str, absent: int) -> int:
    text = os.environ.get(name, str(absent))
    if not text.isdecimal():
        raise ValueError(f"the environment's {name} is {text!r}; it has to be a number")
    return int(text)


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


IGNORE_INDEX = 255  # of masks: pixels that a loss leaves out


class LabelBatch(NamedTuple):
    """Samples as tensors that may be written to; outputs not asked for are None. With
    group_views every n is [objects, views].

    A DataLoader with pin_memory pins its tensors.
    """

    images: torch.Tensor | None  # uint8 [n, 3, H, W], RGB
    masks: torch.Tensor | None  # int64 [n, H, W], class ids; 255 is to be ignored
    keypoints: torch.Tensor | None  # float32 [n, K, 3]: x, y in label pixels, confidence
    depth: torch.Tensor | None  # float16 [n, H, W]
    uncertainty: torch.Tensor | None  # float32 [n]
    uncertainty_map: torch.Tensor | None  # float16 [n, H, W]
    w: torch.Tensor | None  # float32 [n, num_ws, w_dim]
    indices: torch.Tensor  # int64 [n], raw
    position: Position  # of the reader that made it, right after this batch
    views: torch.Tensor | None = None  # int32 [n], code of the view bank; -1: the object's own
    cameras: torch.Tensor | None = None  # float32 [n, 4], see labelmint.model.Camera


class LabelStream(IterableDataset[Any]):
    """Whole batches of one stream, split over all ranks and workers that read it.

    Give it to a DataLoader with batch_size=None. Each index of the range comes to exactly one
    worker of one rank, in ascending order there. Every worker opens its own connection, after
    the fork; none is needed for speed, because threads receive, decode and convert ahead of the
    loop. A range with an end is delivered once by each iteration; ranks then get
    about, not exactly, the same number of batches.
    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        batch_size: int = 16,
        rank: int | None = None,
        world_size: int | None = None,
        transform: Callable[[LabelBatch], Any] | None = None,
        ignore_above: float | None = None,
        group_views: bool = False,
        streams: int = 1,
        token: str | None = None,
        tls: Tls | None = None,
        patience: Patience | None = None,
        prefetch_bytes: int = 64 << 20,
        shared_memory: bool = False,
        **options: Unpack[StreamOptions],
    ) -> None:
        """Connects when it is iterated over.

        Args:
            target: see `labelmint.Client`, as for streams, token, tls, patience, prefetch_bytes
                and shared_memory, which hold for every worker.
            batch_size: samples in a batch; only a reader's last may be short.
            rank, world_size: of this process. None: those of torch.distributed, else of the
                environment's RANK and WORLD_SIZE, else 0 of 1.
            transform: applied to every batch, in the thread that is one batch ahead of the loop.
                Keep `position` for `consumed`.
            ignore_above: mask pixels of a higher uncertainty become 255, the ignore index.
            group_views: see `labelmint.Client.stream`.
            options: see `labelmint.options.StreamOptions`, but without count, max_examined,
                explicit samples and shards.

        Raises:
            TypeError, ValueError: options are unknown, contradict each other or are not for
                sharded streams, or no client could be made of the others.
        """
        check_sharded(options, batch_size, group_views, ignore_above, transform)
        check_settings(streams, token, tls, patience, prefetch_bytes)
        self._rank, self._world_size = _world(rank, world_size)
        self._batch_size, self._transform, self._ignore_above = batch_size, transform, ignore_above
        self._options, self._group_views = options, group_views
        self._open_client = partial(
            Client, targets_from_argument(target), streams=streams, token=token, tls=tls,
            patience=patience, prefetch_bytes=prefetch_bytes, shared_memory=shared_memory,
        )  # fmt: skip
        self._start = Position(Layer(1, {0: options.get("start_index", 0)}))
        self._consumed: dict[int, Position] = {}  # by shard, of the iteration under way

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        shard, shards = self._rank * workers + number, self._world_size * workers
        return self._read(shard, self._start.for_layout(shards))

    def consumed(self, batch: Any) -> None:
        """Tells `state_dict` that this batch was trained on; needed only with workers.

        Args:
            batch: a LabelBatch, or what has its `position`, as an attribute or an item.

        Raises:
            TypeError: it has none.
        """
        position = position_of_batch(batch)
        (shard,) = position.layer.next
        before = self._consumed.get(shard)
        if before is not None and before.layer.next[shard] > position.layer.next[shard]:
            self._consumed.clear()  # another iteration began
        self._consumed[shard] = position

    def state_dict(self) -> dict[str, Any]:
        """What this process consumed: of all its workers, or in a worker its own.

        Plain numbers and strings. `load_state_dict` takes it under the same number of ranks
        and workers; for other numbers merge those of all ranks with `merge_states` first.
        """
        position = self._start
        if self._consumed:
            shards = next(iter(self._consumed.values())).layer.num_shards
            start = self._start.for_layout(shards)
            mine = {shard: start.layer.next[shard] for shard in self._mine(shards)}
            untouched = Position(Layer(shards, mine), start.earlier, start.bundle_id)
            position = merged([untouched, *self._consumed.values()])
        return state_of_stream(position, self._options)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Iterations begin there from now on.

        Raises:
            ValueError: it is no state, or of a stream with other options.
        """
        self._start = position_of_stream(state, self._options)
        self._consumed.clear()

    @staticmethod
    def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One state of those of all ranks, for any number of ranks and workers.

        Raises:
            ValueError: they are no states, do not belong together, or some reader's is missing.
        """
        return merged_states(states)

    def _mine(self, shards: int) -> range:
        """This rank's shards; in a worker, its own."""
        worker = get_worker_info()
        workers = shards // self._world_size
        first = self._rank * workers
        if worker is not None:
            return range(first + worker.id, first + worker.id + 1)
        return range(first, first + workers)

    def _read(self, shard: int, start: Position) -> Iterator[Any]:
        if shard not in start.layer.next:
            raise ValueError(
                f"the state has no position of shard {shard} of {start.layer.num_shards}; it is "
                "another rank's, or merge_states was left out"
            )
        self._consumed.clear()
        source = Made(self._open_client(), partial(self._make, shard, start))
        ahead: Prefetch[Item] = Prefetch(source, 0)
        try:
            while (item := ahead.get()) is not None:
                self._consumed[shard] = item.position
                yield item.batch
        finally:
            ahead.close()

    def _make(self, shard: int, start: Position, client: Client) -> Iterator[Item]:
        """In a thread of its own, one batch ahead of the loop."""
        views = self._options.get("views_per_object", 1)
        done = (lambda indices: start.done(indices, views)) if start.earlier else None
        options = self._options_of(client, shard, start)
        if 0 < options.get("end_index", 0) <= options["start_index"]:
            return
        stream = client.stream(
            self._batch_size, skip=done, group_views=self._group_views, **options
        )
        for batch in stream:
            position = start.advanced(shard, batch.next_index, batch.bundle_id)
            found = label_batch_from_batch(batch, position, self._ignore_above)
            if self._hides_map():
                found = found._replace(uncertainty_map=None)
            yield Item(found if self._transform is None else self._transform(found), position)

    def _options_of(self, client: Client, shard: int, start: Position) -> StreamOptions:
        options = StreamOptions(**self._options)
        options["start_index"] = start.layer.next[shard]
        options["shard_index"], options["num_shards"] = shard, start.layer.num_shards
        if start.bundle_id:
            options["bundle_id"] = start.bundle_id
        if self._ignore_above is not None:
            outputs = options.get("outputs")
            if outputs is None:
                model = client.model(options.get("model", ""))
                outputs = model.usual_outputs(takes_bank(options))
            if "uncertainty_map" not in outputs:
                options["outputs"] = [*outputs, "uncertainty_map"]
        return options

    def _hides_map(self) -> bool:
        """Whether the map is only there for ignore_above."""
        asked = self._options.get("outputs") or ()
        return self._ignore_above is not None and "uncertainty_map" not in asked


def label_batch_from_batch(
    batch: Batch, position: Position, ignore_above: float | None = None
) -> LabelBatch:
    """The tensors of a batch, in memory of their own."""
    masks = None if batch.masks is None else batch.masks.astype(np.int64)
    if ignore_above is not None and masks is not None and batch.uncertainty_map is not None:
        masks[batch.uncertainty_map > ignore_above] = IGNORE_INDEX
    images = None if batch.images is None else np.moveaxis(batch.images, -1, -3)
    return LabelBatch(
        images=_tensor(images),
        masks=None if masks is None else torch.from_numpy(masks),
        keypoints=_tensor(batch.keypoints),
        depth=_tensor(batch.depth),
        uncertainty=_tensor(batch.uncertainty),
        uncertainty_map=_tensor(batch.uncertainty_map),
        w=_tensor(batch.w),
        indices=torch.from_numpy(batch.indices.astype(np.int64)),
        position=position,
        views=_tensor(batch.views),
        cameras=_tensor(batch.cameras),
    )


def _tensor(array: Array | None) -> torch.Tensor | None:
    # A batch's arrays are read-only views; a tensor may be written to.
    return None if array is None else torch.from_numpy(np.array(array, order="C"))


def _world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    given = rank is not None or world_size is not None
    if not given and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return rank_of_launcher(rank, world_size)


def _refuse_to_collate(batch: Any, **_: Any) -> NoReturn:
    raise ValueError(
        "LabelStream yields whole batches, and this DataLoader would make batches of them; give "
        "it batch_size=None, as DataLoader(stream, batch_size=None)"
    )


with contextlib.suppress(ImportError):  # torch documents this table, but not where it is
    from torch.utils.data._utils.collate import default_collate_fn_map

    # Position for what a transform makes of a batch and keeps its position.
    default_collate_fn_map.update({LabelBatch: _refuse_to_collate, Position: _refuse_to_collate})
