"""A service answered by scripts in the caller's thread, at the seam the readers call."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc

from labelmint.batch import Batch
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Message
from labelmint.wire.merge import ShardReader, batches_from_readers
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects
from labelmint.wire.sharding import subshards
from tests.client.scripted_service import Ended, Script, responses

TARGET = "here:1"
QUICK = Patience(connect_s=0.0, reconnect_s=0.05, first_wait_s=0.0001)


class FailedCall(grpc.RpcError):
    """What grpc raises: an error that is also the call."""

    def __init__(self, end: Ended) -> None:
        self._end = end

    def code(self) -> grpc.StatusCode:
        return self._end.code

    def details(self) -> str:
        return self._end.message

    def trailing_metadata(self) -> tuple[Any, ...]:
        return (("grpc-status-details-bin", self._end.details),) if self._end.details else ()


class ScriptedCall:
    """A StreamSamples call that a script answers in this thread."""

    def __init__(self, query: pb.SampleQuery, script: Script) -> None:
        self._responses = responses(query, script)
        self.cancelled = False

    def __next__(self) -> pb.StreamSamplesResponse:
        try:
            return next(self._responses)
        except Ended as end:
            raise FailedCall(end) from end

    def cancel(self) -> bool:
        self.cancelled = True
        return True


class Server:
    """Opens scripted calls; only the first `drops` of them drop."""

    def __init__(self, *scripts: Script, drops: int = 0) -> None:
        self._scripts = itertools.cycle(scripts or (Script(),))
        self._drops = drops
        self.queries: list[pb.SampleQuery] = []
        self.calls: list[ScriptedCall] = []

    def open_call(self, query: pb.SampleQuery, timeout_s: float | None = None) -> OpenedCall:
        script = next(self._scripts)
        if len(self.calls) >= self._drops:
            script = replace(script, messages_until_drop=None)
        copy = pb.SampleQuery()
        copy.CopyFrom(query)
        self.queries.append(copy)
        self.calls.append(ScriptedCall(copy, script))
        return OpenedCall(self.calls[-1], TARGET)

    def batches(
        self, query: pb.SampleQuery, batch_size: int = 4, streams: int = 1
    ) -> Iterator[Batch]:
        readers = []
        for part in subshards(query, streams):
            source = ResumingStream(self.open_call, part, QUICK, Reconnects())
            readers.append(ShardReader(Straight(source), part.start_index))
        return batches_from_readers(readers, batch_size, query)


class Straight:
    """Messages as they are asked for, without a thread."""

    def __init__(self, source: ResumingStream) -> None:
        self._source, self._messages = source, source.messages()

    def get(self) -> Message | None:
        return next(self._messages, None)

    def close(self) -> None:
        self._source.close()
