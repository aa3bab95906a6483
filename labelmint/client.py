"""The way in: `Client` opens a channel and turns options into batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, cast

import grpc

from labelmint.batch import Batch, batch_from_chunks, chunk_from_proto
from labelmint.channel import Tls, metadata_from_token, open_channel
from labelmint.errors import error_from_rpc
from labelmint.model import Model, model_from_proto
from labelmint.options import (
    SamplingOptions,
    StreamOptions,
    query_from_options,
    sampling_from_options,
)
from labelmint.shards import subshards
from labelmint.stream import Reader, StreamCall, batches_from_readers
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1 import label_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Client:
    """A connection to a labelmint server, or to its replicas behind one name.

    Use it as a context manager, and after a fork only in the process that made it. Several
    streams may run at once, in several threads too.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        streams: int = 1,
        token: str | None = None,
        tls: Tls | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Connects lazily: nothing is sent before the first call.

        Args:
            target: "host:port", or "dns:///name:port" for all replicas behind a name.
                None: the environment's LABELMINT_TARGET.
            streams: calls that every `stream` is split over, at least 1, so that one reader
                can use as many replicas.
            token: bearer token. None: the environment's LABELMINT_TOKEN, if any.
            tls: encrypts the channel. None: plain text.
            timeout_s: seconds that `models`, `model` and `generate` may take.

        Raises:
            ValueError: no target, or streams under 1.
            OSError: a file of tls cannot be read.
        """
        target = target or os.environ.get("LABELMINT_TARGET", "")
        if not target:
            raise ValueError("no target; give Client('host:port') or set LABELMINT_TARGET")
        if streams < 1:
            raise ValueError(f"streams {streams} is under 1; give at least one")
        self._target, self._streams, self._timeout_s = target, streams, timeout_s
        self._metadata = metadata_from_token(token)
        self._channel = open_channel(target, tls)
        self._stub = pb_grpc.LabelServiceStub(self._channel)

    def stream(self, batch_size: int = 16, **options: Unpack[StreamOptions]) -> Iterator[Batch]:
        """Streams samples in ascending index order, endlessly unless options bound it.

        Leaving the loop early ends the calls at once. To go on later, pass the same options
        with start_index = batch.next_index, and count less what was delivered.

        Args:
            batch_size: kept samples in a batch, at least 1; only the last may be short.
            options: see `labelmint.options.StreamOptions`.

        Raises:
            TypeError, ValueError: at once, for options that cannot be sent.
            LabelmintError: while iterating; what came before is yielded first.
        """
        query = query_from_options(options)
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is under 1; give at least one")
        return self._stream(batch_size, query)

    def generate(self, **options: Unpack[StreamOptions]) -> Batch:
        """Makes a few samples in one message; count, end_index, indices or rows bound them.

        Raises:
            TypeError, ValueError: options cannot be sent.
            LabelmintError: the call failed; Refused when the answer could exceed a message.
        """
        request = pb.GenerateSamplesRequest(query=query_from_options(options))
        try:
            response: pb.GenerateSamplesResponse = self._stub.GenerateSamples(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        chunk = chunk_from_proto(response.batch)
        return batch_from_chunks(
            [chunk], response.next_index, response.discarded, response.bundle_id
        )

    def models(self) -> list[Model]:
        """The served models, by name; raises LabelmintError."""
        try:
            response: pb.ListModelsResponse = self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        return [model_from_proto(model) for model in response.models]

    def model(
        self,
        name: str = "",
        *,
        keep_fraction: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Model:
        """One model, with the threshold that keep_fraction means for these sampling options.

        Args:
            name: may be left out when the server has only one.
            keep_fraction: (0, 1]; fills Model.max_uncertainty.
            sampling: see `labelmint.options.SamplingOptions`.

        Raises:
            LabelmintError: NotFound, or NotReady when not calibrated for these options.
        """
        request = pb.GetModelRequest(
            model=name,
            sampling=sampling_from_options(sampling),
            keep_fraction=keep_fraction or 0.0,
        )
        try:
            response: pb.GetModelResponse = self._stub.GetModel(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        limit = response.max_uncertainty if response.HasField("max_uncertainty") else None
        return model_from_proto(response.model, limit)

    def close(self) -> None:
        """Ends all streams and closes the channel; harmless when closed."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _stream(self, batch_size: int, query: pb.SampleQuery) -> Iterator[Batch]:
        # A generator, so that no call opens before the first batch is asked for.
        parts = subshards(query, self._streams)
        readers = [Reader(self._open_call, part, self._target) for part in parts]
        yield from batches_from_readers(readers, batch_size, query)

    def _open_call(self, query: pb.SampleQuery) -> StreamCall:
        request = pb.StreamSamplesRequest(query=query)
        return cast(StreamCall, self._stub.StreamSamples(request, metadata=self._metadata))
