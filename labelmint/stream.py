"""Server streams to batches: one `Reader` per sub-shard, merged in index order.

Enter: opened calls. Leave: batches of exactly the wanted size, each with the position that
continues right after it. No threads but a timer for each message: HTTP/2's window prefetches
some MiB for every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import grpc
import numpy as np

from labelmint.batch import Batch, Chunk, batch_from_chunks, chunk_from_proto
from labelmint.errors import (
    LabelmintError,
    MalformedMessage,
    NotReady,
    Unreachable,
    error_from_rpc,
)
from labelmint.shards import members_before, outsiders, resumed
from labelmint.v1 import label_service_pb2 as pb

# A server sends at least a heartbeat every second; a call that it never got stays silent.
SILENCE_S = 30.0


class StreamCall(Protocol):
    """A running StreamSamples call."""

    def __next__(self) -> pb.StreamSamplesResponse: ...
    def cancel(self) -> bool: ...


class Reader:
    """One server stream: its call, the samples not yet taken from it, and its position.

    A stream that the server ends with UNAVAILABLE, as it may at any message boundary, is
    asked for again at its position, once without progress in between.
    """

    def __init__(
        self,
        open_call: Callable[[pb.SampleQuery], StreamCall],
        query: pb.SampleQuery,
        target: str,
    ) -> None:
        self.bundle_id = ""
        self.ended = False
        self._open_call, self._query, self._target = open_call, query, target
        self._call = open_call(query)
        self._may_reopen = False
        self._silent = False  # nothing came for too long, so the call was ended
        self._chunk = Chunk(np.empty(0, np.uint64), {})
        self._next_index = query.start_index  # what the server has told so far
        self._received = 0

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
        watch = threading.Timer(SILENCE_S, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            response = next(self._call)
        except StopIteration:
            self.ended = True
        except grpc.RpcError as error:
            dropped = self._silent or error.code() is grpc.StatusCode.UNAVAILABLE
            if dropped and self._may_reopen:
                self._reopen()
            elif self._silent:
                raise Unreachable(
                    f"{self._target} sent nothing for {SILENCE_S:g} s, not even a heartbeat"
                ) from error
            else:
                raise error_from_rpc(error, self._target) from error
        else:
            self._accept(response)
        finally:
            watch.cancel()

    def cancel(self) -> None:
        """Ends the call; harmless when it has ended."""
        self._call.cancel()

    def _give_up(self) -> None:
        self._silent = True
        self._call.cancel()

    def _accept(self, response: pb.StreamSamplesResponse) -> None:
        chunk = chunk_from_proto(response.batch)
        if len(chunk):
            first, last = int(chunk.indices[0]), int(chunk.indices[-1])
            if first < self._next_index or last >= response.next_index:
                raise MalformedMessage(
                    f"samples {first} to {last} are outside {self._next_index} to "
                    f"{response.next_index}, what the message covers"
                )
            strangers = chunk.indices[outsiders(self._query, chunk.indices)]
            if len(strangers):
                raise MalformedMessage(
                    f"sample {strangers[0]} is not of shard {self._query.shard_index} of "
                    f"{self._query.num_shards}"
                )
        elif response.next_index < self._next_index:
            raise MalformedMessage(
                f"next_index went back from {self._next_index} to {response.next_index}"
            )
        self._chunk = chunk
        self._next_index = response.next_index
        self._received += len(chunk)
        self.bundle_id = response.bundle_id
        self._may_reopen = True

    def _reopen(self) -> None:
        self._may_reopen = self._silent = False
        rest = resumed(self._query, self._next_index, self._received, self.bundle_id)
        if rest is None:
            self.ended = True
        else:
            self._call = self._open_call(rest)


def batches_from_readers(
    readers: Sequence[Reader],
    batch_size: int,
    query: pb.SampleQuery,
) -> Iterator[Batch]:
    """Merges the readers of query's sub-shards; cancels their calls when it ends or is closed.

    On an error, what came before it is yielded first; the error's next_index, where it has
    one, is the position after that.
    """
    next_index, delivered = query.start_index, 0
    try:
        while not query.count or delivered < query.count:
            wanted = min(batch_size, query.count - delivered) if query.count else batch_size
            chunks, error = _gather(readers, wanted)
            gathered = sum(map(len, chunks))
            if gathered:
                start, next_index = next_index, _next_index(readers, chunks)
                examined = members_before(query, next_index) - members_before(query, start)
                bundle_id = max(reader.bundle_id for reader in readers)  # all the same, or none yet
                yield batch_from_chunks(chunks, next_index, examined - gathered, bundle_id)
                delivered += gathered
            if error:
                error.next_index = max(next_index, _next_index(readers, chunks))
                raise error
            if gathered < wanted:
                return
    finally:
        for reader in readers:
            reader.cancel()


def _next_index(readers: Sequence[Reader], taken: Sequence[Chunk]) -> int:
    """The first raw index that nobody took or discarded, right after these samples."""
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
