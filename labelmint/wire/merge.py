"""Server streams to batches: one `Reader` per sub-shard, merged in index order.

Enter: messages. Leave: batches of exactly the wanted size, each with the position that
continues right after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labelmint.batch import Batch, Chunk, batch_from_chunks
from labelmint.errors import LabelmintError, NotReady
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.resuming_stream import Message
from labelmint.wire.sharding import members_before

Marks = Callable[[UInt64s], npt.NDArray[np.bool_]]


class Messages(Protocol):
    """Where a reader's messages come from."""

    def get(self) -> Message | None: ...
    def close(self) -> None: ...


class Reader:
    """One sub-shard: the samples not yet taken from it, and its position."""

    def __init__(self, messages: Messages, start_index: int, skip: Marks | None = None) -> None:
        """`skip` marks those of indices, [n], that are not to be delivered."""
        self.bundle_id = ""
        self.ended = False
        self._messages, self._skip = messages, skip
        self._chunk = Chunk(np.empty(0, np.uint64), {})
        self._next_index = start_index  # what the server has told so far

    @property
    def pending(self) -> bool:
        """Whether samples are at hand."""
        return len(self._chunk) > 0

    @property
    def position(self) -> int:
        """The first raw index that is neither taken nor discarded."""
        return int(self._chunk.indices[0]) if self.pending else self._next_index

    def take(self, limit: int, last: int | None) -> Chunk:
        """Removes up to limit samples at hand, those of indices up to and including last."""
        stop = min(limit, len(self._chunk))
        if last is not None:
            ends = np.searchsorted(self._chunk.indices, np.uint64(last), side="right")
            stop = min(stop, int(ends))
        assert stop, "last is under the position: a caller would ask for ever"
        taken = self._chunk.rows(0, stop)
        self._chunk = self._chunk.rows(stop, len(self._chunk))
        return taken

    def pull(self) -> None:
        """Waits for the next message, or the end; only when no samples are at hand."""
        message = self._messages.get()
        if message is None:
            self.ended = True
            return
        self._chunk, self._next_index = message.chunk, message.next_index
        self.bundle_id = message.bundle_id
        if self._skip is not None and self.pending:
            self._chunk = self._chunk.where(~self._skip(self._chunk.indices))

    def close(self) -> None:
        """Ends the stream; harmless when it has ended."""
        self._messages.close()


def batches_from_readers(
    readers: Sequence[Reader],
    batch_size: int,
    query: pb.SampleQuery,
    unit: int = 1,
) -> Iterator[Batch]:
    """Merges the readers of query's sub-shards; closes them when it ends or is closed.

    Batches end between objects of `unit` views, of which batch_size and count are multiples:
    what is there of one that an error cuts is dropped, and comes again after a resume.

    On an error, what came before it is yielded first; the error's next_index, where it has
    one, is the position after that.
    """
    next_index, delivered = query.start_index, 0
    try:
        while not query.count or delivered < query.count:
            wanted = min(batch_size, query.count - delivered) if query.count else batch_size
            chunks, error = _gather(readers, wanted)
            chunks, cut = _without_cut_object(chunks, unit)
            gathered = sum(map(len, chunks))
            if gathered:
                start, next_index = next_index, _next_index(readers, chunks, cut)
                examined = members_before(query, next_index) - members_before(query, start)
                bundle_id = max(reader.bundle_id for reader in readers)  # all the same, or none yet
                yield batch_from_chunks(chunks, next_index, examined - gathered, bundle_id)
                delivered += gathered
            if error:
                error.next_index = max(next_index, _next_index(readers, chunks, cut))
                raise error
            if gathered < wanted:
                return
    finally:
        for reader in readers:
            reader.close()


def _without_cut_object(chunks: list[Chunk], unit: int) -> tuple[list[Chunk], int | None]:
    """The chunks without the samples of a last object that is not whole, and where it begins."""
    surplus = sum(map(len, chunks)) % unit
    if not surplus:
        return chunks, None
    first = int(chunks[-1].indices[-1]) // unit * unit
    kept = [chunk.where(chunk.indices < np.uint64(first)) for chunk in chunks]
    return [chunk for chunk in kept if len(chunk)], first


def _next_index(readers: Sequence[Reader], taken: Sequence[Chunk], cut: int | None) -> int:
    """The first raw index that nobody took or discarded, right after these samples; or where the
    object begins that was cut."""
    if cut is not None:
        return cut
    waiting = min(reader.position for reader in readers)
    # A reader may wait at an index that is another's, and was delivered by it.
    return max(waiting, int(taken[-1].indices[-1]) + 1) if taken else waiting


def _gather(readers: Sequence[Reader], wanted: int) -> tuple[list[Chunk], LabelmintError | None]:
    """The next samples of all readers in index order, fewer at the end or before an error."""
    chunks: list[Chunk] = []
    while wanted:
        try:
            chunk = _next_run(readers, wanted)
        except LabelmintError as error:
            return chunks, error
        if chunk is None:
            break
        chunks.append(chunk)
        wanted -= len(chunk)
    return chunks, None


def _next_run(readers: Sequence[Reader], limit: int) -> Chunk | None:
    """The next samples, all of one reader; None when every reader has ended."""
    while True:
        live = [reader for reader in readers if reader.pending or not reader.ended]
        if not live:
            return None
        first = min(live, key=lambda reader: reader.position)
        if first.pending:
            # The others hold nothing before their positions, and never the same index.
            others = (reader.position for reader in live if reader is not first)
            return first.take(limit, min(others, default=None))
        first.pull()
        bundles = sorted({reader.bundle_id for reader in readers if reader.bundle_id})
        if len(bundles) > 1:
            raise NotReady(
                f"replicas serve different bundles, {bundles[0]} and {bundles[1]}; pin "
                "bundle_id, or wait until all have the new one",
                "FAILED_PRECONDITION",
            )
