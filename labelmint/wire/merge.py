"""Server streams to batches: one `ShardReader` for each sub-shard, merged in index order.

Enter: messages. Leave: batches of the requested size, each with the position that resumes right
after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labelmint.batch import Batch, KeptSamples, batch_from_kept
from labelmint.errors import LabelmintError, NotReady
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Message
from labelmint.wire.sharding import shard_indices_between

IndexMask = Callable[[UInt64s], npt.NDArray[np.bool_]]  # raw indices [n] -> marked ones, [n]


class MessageSource(Protocol):
    """The messages of one stream, such as a labelmint.wire.prefetch.Prefetch."""

    def get(self) -> Message | None:
        """The next message; None at the end. Raises LabelmintError."""

    def close(self) -> None:
        """Ends the stream."""


def batches_from_readers(
    readers: Sequence[ShardReader],
    batch_size: int,
    query: pb.SampleQuery,
    unit: int = 1,
) -> Iterator[Batch]:
    """Merges the readers of a query's sub-shards; closes them when it ends or is closed.

    Batches end between objects of `unit` views; batch_size and count are multiples of it. An
    object that an error cuts is dropped, and comes again when the stream is resumed.

    Raises LabelmintError after yielding the samples before the error; its next_index is the
    position after those.
    """
    next_index, delivered = query.start_index, 0
    try:
        while not query.count or delivered < query.count:
            wanted = min(batch_size, query.count - delivered) if query.count else batch_size
            samples, error = _gather(readers, wanted)
            samples, cut = _without_cut_object(samples, unit)
            gathered = sum(map(len, samples))
            if gathered:
                start, next_index = next_index, _next_index(readers, samples, cut)
                examined = shard_indices_between(query, start, next_index)
                bundle_id = max(reader.bundle_id for reader in readers)  # all the same, or none yet
                learned_id = max(reader.learned_id for reader in readers)
                yield batch_from_kept(
                    samples, next_index, examined - gathered, bundle_id, learned_id,
                    query.sampling.edits,
                )  # fmt: skip
                delivered += gathered
            if error:
                error.next_index = max(next_index, _next_index(readers, samples, cut))
                raise error
            if gathered < wanted:
                return
    finally:
        for reader in readers:
            reader.close()


class ShardReader:
    """The position in one sub-shard, and the samples received and not yet taken."""

    def __init__(
        self, messages: MessageSource, start_index: int, skip: IndexMask | None = None
    ) -> None:
        """`skip` marks the indices of samples that are not delivered."""
        self.bundle_id = self.learned_id = ""
        self.ended = False
        self._messages, self._skip = messages, skip
        self._kept = KeptSamples(np.empty(0, np.uint64), {})
        self._next_index = start_index  # as the last message said

    @property
    def has_samples(self) -> bool:
        """Whether samples can be taken without waiting."""
        return len(self._kept) > 0

    @property
    def position(self) -> int:
        """The first raw index that is neither taken nor discarded."""
        return int(self._kept.indices[0]) if self.has_samples else self._next_index

    def take(self, limit: int, last: int | None) -> KeptSamples:
        """Removes up to `limit` samples, of indices up to and including `last`."""
        stop = min(limit, len(self._kept))
        if last is not None:
            ends = np.searchsorted(self._kept.indices, np.uint64(last), side="right")
            stop = min(stop, int(ends))
        assert stop, "last is under the position, so the caller would ask without end"
        taken = self._kept.rows(0, stop)
        self._kept = self._kept.rows(stop, len(self._kept))
        return taken

    def receive(self) -> None:
        """Waits for the next message, or the end; call it only without samples."""
        message = self._messages.get()
        if message is None:
            self.ended = True
            return
        self._kept, self._next_index = message.kept, message.next_index
        self.bundle_id, self.learned_id = message.bundle_id, message.learned_id
        if self._skip is not None and self.has_samples:
            self._kept = self._kept.where(~self._skip(self._kept.indices))

    def close(self) -> None:
        """Ends the stream; harmless when it has ended."""
        self._messages.close()


def _gather(
    readers: Sequence[ShardReader], wanted: int
) -> tuple[list[KeptSamples], LabelmintError | None]:
    """The next `wanted` samples in index order, fewer at the end or before an error."""
    samples: list[KeptSamples] = []
    while wanted:
        try:
            run = _next_run(readers, wanted)
        except LabelmintError as error:
            return samples, error
        if run is None:
            break
        samples.append(run)
        wanted -= len(run)
    return samples, None


def _next_run(readers: Sequence[ShardReader], limit: int) -> KeptSamples | None:
    """The next samples, all from one reader; None when every reader has ended."""
    while True:
        live = [reader for reader in readers if reader.has_samples or not reader.ended]
        if not live:
            return None
        first = min(live, key=lambda reader: reader.position)
        if first.has_samples:
            # Another reader has no sample before its position, and never an index of this one.
            others = (reader.position for reader in live if reader is not first)
            return first.take(limit, min(others, default=None))
        first.receive()
        bundles = sorted({reader.bundle_id for reader in readers if reader.bundle_id})
        if len(bundles) > 1:
            raise NotReady(
                f"replicas serve different bundles, {bundles[0]} and {bundles[1]}; pin "
                "bundle_id, or wait until all have the new one",
                "FAILED_PRECONDITION",
            )
        # One without a learned_id is of an older version, which does not say what it serves.
        if len({reader.learned_id for reader in readers if reader.bundle_id}) > 1:
            raise NotReady(
                "replicas serve different proposals, directions or calibrations of one bundle, or "
                "are of different versions; pin learned_id, or wait until all have the new ones",
                "FAILED_PRECONDITION",
            )


def _without_cut_object(
    samples: list[KeptSamples], unit: int
) -> tuple[list[KeptSamples], int | None]:
    """The samples without those of an incomplete last object, and the index where it begins."""
    surplus = sum(map(len, samples)) % unit
    if not surplus:
        return samples, None
    cut = int(samples[-1].indices[-1]) // unit * unit
    whole = [kept.where(kept.indices < np.uint64(cut)) for kept in samples]
    return [kept for kept in whole if len(kept)], cut


def _next_index(
    readers: Sequence[ShardReader], taken: Sequence[KeptSamples], cut: int | None
) -> int:
    """The raw index at which to resume right after the taken samples.

    That is the first index that no reader took or discarded, or `cut`, where the object begins
    that was cut.
    """
    if cut is not None:
        return cut
    waiting = min(reader.position for reader in readers)
    # A reader's position may be an index of another shard, whose reader has delivered it.
    return max(waiting, int(taken[-1].indices[-1]) + 1) if taken else waiting
