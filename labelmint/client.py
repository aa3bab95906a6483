"""`Client`: options -> requests to a server or its replicas -> batches and models."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc

from labelmint.arguments import of_type, real_number, whole_number
from labelmint.batch import Batch, batch_from_kept
from labelmint.errors import MalformedMessage, NotReady
from labelmint.filter_options import check_fraction
from labelmint.learned import CalibrationDigests
from labelmint.model import Model, learned_id_from_model, model_from_proto
from labelmint.options import (
    SamplingOptions,
    StreamOptions,
    check_batch_size,
    query_from_options,
    sampling_from_options,
)
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import kept_from_answer
from labelmint.wire.channel import Tls, metadata_from_token
from labelmint.wire.faults import error_from_call
from labelmint.wire.merge import IndexMask, ShardReader, batches_from_readers
from labelmint.wire.prefetch import Prefetch, Prefetches
from labelmint.wire.replicas import Replica, Replicas, targets_from_argument
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects, Retries
from labelmint.wire.sharding import grouped_batch, query_for_groups, subshards
from labelmint.wire.shared_memory import shared_call

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Client:
    """A connection to a labelmint service: one server, or its replicas.

    Use it as a context manager, and only in the process that made it; forks of that process can
    have no client at all. Several streams may run at once, also in several threads. A stream
    whose server fails is resumed at its position, at the next replica; `reconnects` counts that,
    and the logger "labelmint" has a line for it.
    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        streams: int = 1,
        token: str | None = None,
        tls: Tls | None = None,
        timeout_s: float = 60.0,
        patience: Patience | None = None,
        prefetch_bytes: int = 64 << 20,
        shared_memory: bool = False,
    ) -> None:
        """Connects lazily: nothing is sent before the first call.

        Args:
            target: "host:port", several as "host:port,host:port" or a list, or
                "dns:///name:port" for all replicas behind a name. None: the environment's
                LABELMINT_TARGET. Calls go to several targets in turns: the first call of a
                shard to target number shard_index modulo their count, others from a random one.
            streams: number of calls that every `stream` is split into, at least 1, so that one
                reader can use several replicas.
            token: bearer token. None: the environment's LABELMINT_TOKEN, if any.
            tls: encrypts the channel. None: plain text.
            timeout_s: seconds that `models`, `model` and `generate` may take.
            patience: how long to wait for a server that is unreachable, busy or loading.
            prefetch_bytes: bytes of decoded samples that a stream receives ahead; at least one
                message for each of its calls is received, however large.
            shared_memory: receive the messages of streams through memory shared with a server on
                this host that runs with --shared-memory; other servers send them over the
                connection.

        Raises:
            ValueError: no target, or one without a port; a token that is not one word of ASCII;
                a file of tls that is not PEM; streams under 1, timeout_s not over 0, or
                prefetch_bytes under 0.
            TypeError: an argument has another type.
            OSError: a file of tls cannot be read.
            ClientClosed: this process is a fork of one that had a client.
        """
        check_settings(streams, token, tls, patience, prefetch_bytes, timeout_s)
        targets = targets_from_argument(target)
        self._streams, self._timeout_s = streams, timeout_s
        self._patience, self._prefetch_bytes = patience or Patience(), prefetch_bytes
        self._shared_memory, self._reconnects = shared_memory, Reconnects()
        self._metadata = metadata_from_token(token)
        self._replicas = Replicas(targets, tls)
        self._prefetches = Prefetches()
        self._end = weakref.finalize(self, _close, self._prefetches, self._replicas)

    @property
    def reconnects(self) -> int:
        """Number of calls repeated so far."""
        return self._reconnects.count

    def stream(
        self,
        batch_size: int = 16,
        *,
        deadline_s: float | None = None,
        skip: IndexMask | None = None,
        group_views: bool = False,
        first_target: int | None = None,
        **options: Unpack[StreamOptions],
    ) -> Iterator[Batch]:
        """Streams samples in ascending index order, endlessly unless options bound it.

        The iterator it returns can be used once; call it again for another pass. Leaving the loop
        early ends the calls at once. To resume later, pass the same options with start_index =
        batch.next_index, and with count reduced by the samples delivered.

        Args:
            batch_size: samples in a batch, at least 1; only the last batch may have fewer.
            deadline_s: seconds after which the stream raises TimedOut, counted from the request
                for the first batch. None: no deadline.
            skip: function of raw indices, uint64 [n], that marks with bool [n] the samples to
                leave out after they were received, as if the filter had rejected them.
            group_views: give the arrays of batches the axes [objects, views_per_object] in place
                of [n]. batch_size and count must then be multiples of views_per_object, indices
                and ranges whole objects, and a filter needs filter_sets. A range that begins
                within an object begins at the next one.
            first_target: number of the target, modulo their count, that the first call goes to,
                so that readers of a range's parts spread evenly. None: that of the shard, or a
                random one.
            options: see `labelmint.options.StreamOptions`.

        Raises:
            TypeError, ValueError: at once, for options that cannot be sent.
            LabelmintError: while iterating, after the samples before the error were yielded.
        """
        query = query_from_options(options)
        check_batch_size(batch_size)
        if deadline_s is not None and math.isnan(real_number("deadline_s", deadline_s)):
            raise ValueError("deadline_s is nan; give seconds, or None for no deadline")
        if first_target is not None:
            whole_number("first_target", first_target)
        elif query.num_shards > 1:  # several clients read shards, and begin at different targets
            first_target = query.shard_index * self._streams
        if not group_views:
            return self._batches(batch_size, query, deadline_s, skip, first_target)
        query, views = query_for_groups(query, batch_size)
        batches = self._batches(batch_size, query, deadline_s, skip, first_target, views)
        return (grouped_batch(batch, views) for batch in batches)

    def generate(self, **options: Unpack[StreamOptions]) -> Batch:
        """Returns a few samples, sent in one message.

        Args:
            options: see `labelmint.options.StreamOptions`; count, end_index, indices or latents
                must bound the number of samples.

        Raises:
            TypeError, ValueError: options cannot be sent, or have no bound.
            LabelmintError: the call failed; Refused when the answer could exceed a message;
                MalformedMessage when it is none to this request.
        """
        query = query_from_options(options)
        if not (query.count or query.end_index or query.indices or query.HasField("latents")):
            raise ValueError(
                "generate has no bound; give count, end_index, indices or latents, or use stream, "
                "which may be endless"
            )
        request = pb.GenerateSamplesRequest(query=query)
        response: pb.GenerateSamplesResponse = self._call("GenerateSamples", request)
        kept = kept_from_answer(query, response)
        return batch_from_kept(
            [kept], response.next_index, response.discarded, response.bundle_id,
            response.learned_id, query.sampling.edits,
        )  # fmt: skip

    def models(self) -> list[Model]:
        """The served models in ascending order of their names. Raises LabelmintError."""
        response: pb.ListModelsResponse = self._call("ListModels", pb.ListModelsRequest())
        return [model_from_proto(model) for model in response.models]

    def model(
        self,
        name: str = "",
        *,
        keep_fraction: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Model:
        """One model, with the uncertainty threshold of keep_fraction if that is given.

        Args:
            name: of the model; may be left out when the server has only one.
            keep_fraction: share of samples to keep, in (0, 1]; sets Model.max_uncertainty to its
                threshold for these sampling options.
            sampling: see `labelmint.options.SamplingOptions`.

        Raises:
            TypeError, ValueError: keep_fraction is out of range, or an option cannot be sent.
            LabelmintError: NotFound; or NotReady when the model is not calibrated for these
                options.
        """
        if keep_fraction is not None:
            check_fraction(keep_fraction)
        of_type("name", name, str, "text")
        request = pb.GetModelRequest(
            model=name,
            sampling=sampling_from_options(sampling),
            keep_fraction=keep_fraction or 0.0,
        )
        response: pb.GetModelResponse = self._call("GetModel", request)
        if response.model.name != (name or response.model.name):
            raise MalformedMessage(
                f"the server described model {response.model.name[:100]!r} instead of {name!r}"
            )
        limit = response.max_uncertainty if response.HasField("max_uncertainty") else None
        if keep_fraction is not None and not (limit is not None and limit >= 0):
            raise MalformedMessage(
                f"the server sent {limit} as the threshold of keep_fraction {keep_fraction}; it "
                "should be a number from 0 up"
            )
        calibration = CalibrationDigests(
            response.calibration.thresholds_digest, response.calibration.content_digest
        )
        return model_from_proto(response.model, limit, calibration)

    def pin(self, **options: Unpack[StreamOptions]) -> StreamOptions:
        """These options for readers that start at other times, or again: their samples are equal.

        What a server would look up anew for each call is looked up once: the model's name, the
        bundle_id, and the threshold of keep_fraction, in whose place max_uncertainty is given.
        A proposal, the directions of edits, the several thresholds of keep_by and the coins of
        balance are pinned by learned_id: a server where one of them was replaced refuses.

        Args:
            options: see `labelmint.options.StreamOptions`.

        Raises:
            TypeError, ValueError: options cannot be sent.
            LabelmintError: as `model`; NotReady also when another bundle_id or learned_id is
                served; Invalid when the model has no proposal or direction of a name.
        """
        query_from_options(options)
        given = cast(dict[str, Any], options)
        sampling = {
            name: given[name]
            for name in SamplingOptions.__annotations__
            if name in given and name != "edits"  # a threshold does not depend on them
        }
        fraction, bundle_id = options.get("keep_fraction"), options.get("bundle_id")
        model = self.model(options.get("model") or "", keep_fraction=fraction, **sampling)
        if bundle_id and bundle_id != model.bundle_id:
            raise NotReady(
                f"bundle_id is {bundle_id}, {model.name} is served from {model.bundle_id}; leave "
                "bundle_id out, or ask a server that has that bundle",
                "FAILED_PRECONDITION",
            )
        pinned: StreamOptions = {**options, "model": model.name, "bundle_id": model.bundle_id}
        learned_id = learned_id_from_model(model, options)
        if fraction is not None and options.get("keep_by") is None:
            del pinned["keep_fraction"]
            pinned["max_uncertainty"] = model.max_uncertainty
            pinned.pop("learned_id", None)  # it covers thresholds, which are not needed any more
            learned_id = learned_id_from_model(model, pinned)
        if learned_id:
            pinned["learned_id"] = learned_id
        return pinned

    def close(self) -> None:
        """Ends all streams, their threads and the connection; harmless when closed.

        Streams and calls that are running, and later ones, raise ClientClosed.
        """
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Client is a connection and cannot be pickled or copied; make a Client in each "
            "process, or use labelmint.torch.LabelStream, which can be"
        )

    def _batches(
        self,
        batch_size: int,
        query: pb.SampleQuery,
        deadline_s: float | None,
        skip: IndexMask | None,
        first_target: int | None,
        unit: int = 1,
    ) -> Iterator[Batch]:
        # A generator, so that no call opens before the first batch is requested.
        deadline = math.inf if deadline_s is None else time.monotonic() + deadline_s
        parts = subshards(query, self._streams)
        turns = None if first_target is None else self._replicas.turns_from(first_target)
        open_call = partial(self._open_stream, turns)
        readers = []
        for part in parts:
            source = ResumingStream(open_call, part, self._patience, self._reconnects, deadline)
            prefetch = Prefetch(source, self._prefetch_bytes // len(parts))
            self._prefetches.add(prefetch)
            readers.append(ShardReader(prefetch, part.start_index, skip))
        yield from batches_from_readers(readers, batch_size, query, unit)

    def _open_stream(
        self, turns: Iterator[Replica] | None, query: pb.SampleQuery, timeout_s: float | None
    ) -> OpenedCall:
        options = {"timeout": timeout_s, "metadata": self._metadata}
        with self._replicas.turn(turns) as replica:
            stub = replica.stub
            if self._shared_memory:
                call = shared_call(stub, query, **options)
            else:
                call = stub.StreamSamples(pb.StreamSamplesRequest(query=query), **options)
            return OpenedCall(call, replica.target, replica.tls)

    def _call(self, method: str, request: Any) -> Any:
        """The answer of a call, which is repeated if it fails. Raises LabelmintError."""
        deadline = time.monotonic() + self._timeout_s
        retries = Retries(self._patience, self._reconnects, deadline, self._replicas.closed)
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            with self._replicas.turn() as replica:
                try:
                    call = getattr(replica.stub, method)
                    return call(request, timeout=left_s, metadata=self._metadata)
                except grpc.RpcError as error:
                    typed = error_from_call(error, replica.target, replica.tls)
                    typed.__cause__ = error
                    retries.wait(typed, f"calling {method} again")


def check_settings(
    streams: int,
    token: str | None,
    tls: Tls | None,
    patience: Patience | None,
    prefetch_bytes: int,
    timeout_s: float = 60.0,
) -> None:
    """Raises TypeError, ValueError for settings that a client cannot have."""
    if whole_number("streams", streams) < 1:
        raise ValueError(f"streams {streams} is under 1; give at least one")
    if not real_number("timeout_s", timeout_s) > 0:
        raise ValueError(f"timeout_s {timeout_s} is not over 0; give seconds")
    if whole_number("prefetch_bytes", prefetch_bytes) < 0:
        raise ValueError(f"prefetch_bytes {prefetch_bytes} is under 0; give 0 or more")
    of_type("tls", tls, Tls, "Tls(), or Tls with PEM files")
    of_type("patience", patience, Patience, "Patience(reconnect_s=...)")
    metadata_from_token(token)


def _close(prefetches: Prefetches, replicas: Replicas) -> None:
    prefetches.close()
    replicas.close()
