"""`LabelStream`: a stream of samples as a PyTorch dataset of whole batches.

Enter: options, and the rank and worker that read. Leave: `LabelBatch`es of tensors, each with the
position that resumes right after it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from labelmint.arguments import real_number
from labelmint.batch import Batch
from labelmint.client import Client, check_settings
from labelmint.codec import Array
from labelmint.errors import MissingExtra
from labelmint.extras import install_from_extra
from labelmint.options import (
    WHOLE_STREAM,
    StreamOptions,
    check_batch_size,
    is_weighted,
    query_from_options,
    takes_bank,
)
from labelmint.torch.position import (
    Position,
    ShardLayout,
    merged_positions,
    merged_stream_states,
    position_from_batch,
    position_from_stream_state,
    stream_state_from_position,
)
from labelmint.wire.channel import Tls
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.replicas import targets_from_argument
from labelmint.wire.retries import Patience
from labelmint.wire.sharding import END_OF_INDICES, query_for_groups

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ImportError as error:
    raise MissingExtra(f"labelmint.torch needs torch: {install_from_extra('torch')}") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

IGNORE_INDEX = 255  # class id in masks of pixels that a loss leaves out


class LabelBatch(NamedTuple):
    """Samples as tensors that may be written to; outputs that were not requested are None.

    H and W are the height and width of the image for images, of the label grid for everything
    else. With group_views every n is [objects, views]. A DataLoader with pin_memory pins the
    tensors.
    """

    images: torch.Tensor | None  # uint8 [n, 3, H, W], RGB
    masks: torch.Tensor | None  # int64 [n, H, W], class ids; 255 is to be ignored
    keypoints: torch.Tensor | None  # float32 [n, K, 3]: x, y in label pixels, confidence
    depth: torch.Tensor | None  # float16 [n, H, W]
    uncertainty: torch.Tensor | None  # float32 [n]
    uncertainty_map: torch.Tensor | None  # float16 [n, H, W]
    w: torch.Tensor | None  # float32 [n, num_ws, w_dim]
    indices: torch.Tensor  # int64 [n], raw
    position: Position  # position of the batch's reader right after it
    views: torch.Tensor | None = None  # int32 [n], code of the view bank; -1: the object's own
    cameras: torch.Tensor | None = None  # float32 [n, 4], fields of labelmint.model.Camera
    weights: torch.Tensor | None = None  # float32 [n], over 0; with `balance` or `proposal`
    edits: dict[str, float] | None = None  # strengths by direction that w has; None: plain samples

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelBatch:
        """The batch with its tensors on a device; see torch.Tensor.to."""
        moved: list[Any] = [
            value.to(device, non_blocking=non_blocking)
            if isinstance(value, torch.Tensor)
            else value
            for value in self
        ]
        return LabelBatch(*moved)


class LabelStream(IterableDataset[Any]):
    """Whole batches of one stream, split over all ranks and workers that read it.

    Give it to a DataLoader with batch_size=None. Each raw index of the range comes to exactly one
    worker of one rank, in ascending order there. Workers open their own connections; those that
    are forked from a process that had a connection itself raise ClientClosed, and need
    multiprocessing_context="forkserver". Workers are not needed for speed, because threads
    receive, decode and convert ahead of the training loop. Each iteration delivers a range that
    has an end once; ranks then get about, not exactly, the same number of batches.
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
            target, streams, token, tls, patience, prefetch_bytes, shared_memory: see
                `labelmint.Client`; every worker makes a client with these.
            batch_size: samples in a batch; only a reader's last batch may have fewer.
            rank, world_size: of this process. None: those of torch.distributed where it is
                initialized when the iteration begins, else the environment's RANK and WORLD_SIZE,
                else 0 and 1.
            transform: function applied to every batch, in a thread one batch ahead of the loop.
                It must keep `position` if batches are given to `consumed`.
            ignore_above: mask pixels whose uncertainty is above this become 255, the ignore
                index.
            group_views: see `labelmint.Client.stream`.
            options: see `labelmint.options.StreamOptions`, without count, max_examined, explicit
                indices and latents, shard_index and num_shards.

        Raises:
            TypeError, ValueError: options are unknown, contradict each other or cannot be
                sharded, or `labelmint.Client` refuses one of its settings.
        """
        check_dataset_options(options, batch_size, group_views, ignore_above, transform)
        check_settings(streams, token, tls, patience, prefetch_bytes)
        self._given_rank = rank, world_size
        self._rank_and_world_size()  # refuses wrong ones here
        self._batch_size, self._transform, self._ignore_above = batch_size, transform, ignore_above
        self._options, self._group_views = options, group_views
        self._open_client = partial(
            Client, targets_from_argument(target), streams=streams, token=token, tls=tls,
            patience=patience, prefetch_bytes=prefetch_bytes, shared_memory=shared_memory,
        )  # fmt: skip
        self._start = Position(ShardLayout(1, {0: options.get("start_index", 0)}))
        self._consumed: dict[int, Position] = {}  # by shard, of the current iteration

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        rank, world_size = self._rank_and_world_size()
        shard, shards = rank * workers + number, world_size * workers
        return self._read(shard, self._start.for_layout(shards))

    def consumed(self, batch: Any) -> None:
        """Records for `state_dict` that this batch was trained on; only needed with workers.

        Args:
            batch: a LabelBatch, or any object with its `position` as an attribute or an item.

        Raises:
            TypeError: it has no position.
        """
        position = position_from_batch(batch)
        (shard,) = position.layout.next
        before = self._consumed.get(shard)
        if before is not None and before.layout.next[shard] > position.layout.next[shard]:
            self._consumed.clear()  # another iteration began
        self._consumed[shard] = position

    def set_epoch(self, epoch: int) -> None:
        """Called by Accelerate's own loaders, which read on one rank alone or split by rank again.

        Raises:
            ValueError: the run is distributed, and the stream is split among its ranks already.
        """
        _, world_size = self._rank_and_world_size()
        if world_size > 1 or _distributed():
            raise ValueError(
                f"this stream is split over {world_size} ranks, and Accelerate's loader would "
                "split it again; prepare LabelLoader(stream) of labelmint.torch instead of a "
                "DataLoader"
            )

    def state_dict(self) -> dict[str, Any]:
        """The position of all workers of this process; in a worker, that worker's position alone.

        Plain numbers, strings and dicts. `load_state_dict` takes it under the same number of
        ranks and workers; for other numbers, merge the states of all ranks with `merge_states`.
        """
        position = self._start
        if self._consumed:
            shards = next(iter(self._consumed.values())).layout.num_shards
            start = self._start.for_layout(shards)
            starts = {shard: start.layout.next[shard] for shard in self._own_shards(shards)}
            layout = ShardLayout(shards, starts)
            untouched = Position(layout, start.earlier, start.bundle_id, start.learned_id)
            position = merged_positions([untouched, *self._consumed.values()])
        return stream_state_from_position(position, self._options)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Later iterations begin at the state's position.

        Raises:
            ValueError: it is no state, or of a stream with other options.
        """
        self._start = position_from_stream_state(state, self._options)
        self._consumed.clear()

    @staticmethod
    def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One state from the states of all ranks, for any number of ranks and workers.

        Raises:
            ValueError: one is no state, they do not belong together, or a reader's is missing.
        """
        return merged_stream_states(states)

    def _rank_and_world_size(self) -> tuple[int, int]:
        """Asked late: Lightning sets up torch.distributed after the stream is made."""
        return _rank_and_world_size(*self._given_rank)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if _distributed():
            # For a worker, which has no torch.distributed; others ask where they arrive.
            state["_given_rank"] = self._rank_and_world_size()
        return state

    def _own_shards(self, shards: int) -> range:
        """This rank's shards; in a worker, the worker's shard."""
        worker = get_worker_info()
        rank, world_size = self._rank_and_world_size()
        workers = shards // world_size
        first = rank * workers
        if worker is not None:
            return range(first + worker.id, first + worker.id + 1)
        return range(first, first + workers)

    def _read(self, shard: int, start: Position) -> Iterator[Any]:
        """The batches of one shard, transformed, as the training loop gets them."""
        if shard not in start.layout.next:
            raise ValueError(
                f"the state has no position of shard {shard} of {start.layout.num_shards}; load "
                "the state of this rank, or merge those of all ranks with merge_states"
            )
        self._consumed.clear()
        source = BatchSource(self._open_client(), partial(self._ready_batches, shard, start))
        prefetch: Prefetch[ReadyBatch] = Prefetch(source, 0)
        try:
            while (ready := prefetch.get()) is not None:
                self._consumed[shard] = ready.position
                yield ready.batch
        finally:
            prefetch.close()

    def _ready_batches(self, shard: int, start: Position, client: Client) -> Iterator[ReadyBatch]:
        """Receives, converts and transforms; runs in a thread one batch ahead of the loop."""
        views = self._options.get("views_per_object", 1)
        skip = (lambda indices: start.done(indices, views)) if start.earlier else None
        options = self._options_of_shard(client, shard, start)
        if 0 < options.get("end_index", 0) <= options["start_index"]:
            return
        stream = client.stream(
            self._batch_size, skip=skip, group_views=self._group_views, **options
        )
        for batch in stream:
            position = start.advanced(
                shard, batch.next_index, batch.bundle_id, batch.learned_id or ""
            )
            tensors = label_batch_from_batch(batch, position, self._ignore_above)
            if self._hides_uncertainty_map():
                tensors = tensors._replace(uncertainty_map=None)
            transformed = tensors if self._transform is None else self._transform(tensors)
            yield ReadyBatch(transformed, position)

    def _options_of_shard(self, client: Client, shard: int, start: Position) -> StreamOptions:
        options = StreamOptions(**self._options)
        options["start_index"] = start.layout.next[shard]
        options["shard_index"], options["num_shards"] = shard, start.layout.num_shards
        if start.bundle_id:
            options["bundle_id"] = start.bundle_id
            if options.get("where") or options.get("max_class_uncertainty"):
                options["max_examined"] = END_OF_INDICES  # it was met; a server counts misses anew
        if start.learned_id:
            options["learned_id"] = start.learned_id
        if self._ignore_above is not None:
            outputs = options.get("outputs")
            if outputs is None:
                model = client.model(options.get("model", ""))
                outputs = model.usual_outputs(takes_bank(options), is_weighted(options))
            if "uncertainty_map" not in outputs:
                options["outputs"] = [*outputs, "uncertainty_map"]
        return options

    def _hides_uncertainty_map(self) -> bool:
        """Whether the map is requested for ignore_above only, and not by the caller."""
        outputs = self._options.get("outputs") or ()
        return self._ignore_above is not None and "uncertainty_map" not in outputs


class ReadyBatch(NamedTuple):
    """A transformed batch, and the reader's position right after it."""

    batch: Any
    position: Position
    nbytes: int = 0  # counts nothing, so that a prefetch holds one, however large


class BatchSource:
    """What a Prefetch of ready batches reads: a client, and a function that makes them of it."""

    def __init__(
        self, client: Client, batches_from_client: Callable[[Client], Iterator[ReadyBatch]]
    ) -> None:
        self._client, self._batches_from_client = client, batches_from_client

    def messages(self) -> Iterator[ReadyBatch]:
        return self._batches_from_client(self._client)

    def watch(self) -> None:
        """Does nothing: the client's own stream watches its servers."""

    def close(self) -> None:
        self._client.close()


class LabelLoader(DataLoader[Any]):
    """DataLoader(stream, batch_size=None), and every rank reads its own part of the stream.

    Of other loaders of iterable datasets, `accelerate.Accelerator.prepare` makes one that reads on
    the first rank alone and distributes parts of its batches. Batches stay on the CPU: move them by
    `batch.to(device, non_blocking=True)`.
    """

    _is_accelerate_prepared = True  # Accelerate's mark of a loader that needs no change

    def __init__(self, stream: LabelStream, **options: Any) -> None:
        """Args:
        stream: the stream.
        options: arguments of torch.utils.data.DataLoader, such as num_workers and pin_memory.
        """
        super().__init__(stream, batch_size=None, **options)


def label_batch_from_batch(
    batch: Batch, position: Position, ignore_above: float | None = None
) -> LabelBatch:
    """The tensors of a batch, copied; images channels first, masks int64.

    Mask pixels whose uncertainty is above `ignore_above` become IGNORE_INDEX.
    """
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
        weights=_tensor(batch.weights),
        edits=batch.edits,
    )


def _tensor(array: Array | None) -> torch.Tensor | None:
    # Copied, because the arrays of a batch are read-only.
    return None if array is None else torch.from_numpy(np.array(array, order="C"))


def check_dataset_options(
    options: StreamOptions,
    batch_size: int,
    group_views: bool,
    ignore_above: float | None,
    transform: Callable[..., Any] | None,
) -> None:
    """Raises TypeError, ValueError for options that cannot be sharded or contradict each other."""
    for name in WHOLE_STREAM:
        if options.get(name) is not None:
            raise ValueError(f"option {name!r} is not for LabelStream; use Client.stream")
    check_batch_size(batch_size)
    if transform is not None and not callable(transform):
        raise TypeError(f"transform is {transform!r}; give a function of a LabelBatch")
    if ignore_above is not None and not real_number("ignore_above", ignore_above) >= 0:
        raise ValueError(f"ignore_above {ignore_above} is under 0; give a limit from 0 up")
    query = query_from_options(options)
    if ignore_above is not None and "mask" not in (options.get("outputs") or ["mask"]):
        raise ValueError(
            f"ignore_above {ignore_above} needs masks, and outputs has no mask; add it"
        )
    if group_views:
        query_for_groups(query, batch_size)


def _rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The arguments, or torch.distributed's, or the environment's RANK and WORLD_SIZE, or 0 and 1.

    Raises ValueError when only one is given, or the rank is not under the world size.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank {rank} and world_size {world_size} go together; give both")
    if rank is None or world_size is None:
        if _distributed():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        rank, world_size = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is outside 0 to world_size - 1 = {world_size - 1}")
    return rank, world_size


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"the environment's {name} is {text!r}; it must be a number")
    return int(text)


def _refuse_to_collate(batch: Any, **_: Any) -> NoReturn:
    raise ValueError(
        "LabelStream yields whole batches, and this DataLoader would make batches of them; give "
        "it batch_size=None, as DataLoader(stream, batch_size=None)"
    )


with contextlib.suppress(ImportError):  # torch documents this table, but not where it is
    from torch.utils.data._utils.collate import default_collate_fn_map

    # Position stands for whatever a transform makes of a batch, as long as it keeps the position.
    default_collate_fn_map.update({LabelBatch: _refuse_to_collate, Position: _refuse_to_collate})
