"""labelmint.v1.LabelService: the four calls."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager

import grpc

from labelmint.latents import Mt19937Rows
from labelmint.v1 import label_service_pb2 as pb
from service.admission import Admission
from service.config import Limits
from service.delivery import Chunk, Stream
from service.encoding import message_from_chunk
from service.errors import BadRequest, NotServing, RangeSpent, UnknownModel
from service.models import ServedModel
from service.query import Query
from service.rpc.calls import Call, Calls, request_from_bytes
from service.rpc.info import proto_from_model
from service.rpc.query import bounded_query_from_proto, query_from_proto
from service.rpc.sampling import options_from_proto, threshold_from_fraction
from service.tracing import Tracing

SERVICE: str = pb.DESCRIPTOR.services_by_name["LabelService"].full_name


class LabelService:
    """Answers calls while it has models, until it is told to refuse them."""

    def __init__(self, limits: Limits, calls: Calls, encoders: Executor, tracing: Tracing) -> None:
        self.calls, self._tracing = calls, tracing
        self._limits, self._encoders = limits, encoders
        self._admission = Admission(limits)
        self._models: dict[str, ServedModel] = {}
        self._refusal: NotServing | None = NotServing("the server is loading; try again soon")
        self._streams: set[Stream] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a server."""
        calls = self.calls
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamSamples": calls.stream("StreamSamples", self.stream_samples),
                "GenerateSamples": calls.unary("GenerateSamples", self.generate_samples),
                "ListModels": calls.unary("ListModels", self.list_models),
                "GetModel": calls.unary("GetModel", self.get_model),
            },
        )

    def serve(self, models: Sequence[ServedModel]) -> None:
        """From now on these models are served."""
        self._models = {model.name: model for model in models}
        self._refusal = None

    def drain(self) -> None:
        """From now on calls are refused; streams end before their next message."""
        self._refusal = NotServing(
            "the server is draining; resume at another replica, from next_index"
        )
        for stream in self._streams:
            stream.stop(self._refusal)

    async def stream_samples(self, call: Call, data: bytes) -> AsyncGenerator[bytes, None]:
        """Messages of StreamSamples."""
        proto = request_from_bytes(data, pb.StreamSamplesRequest).query
        model = self._model(call, proto.model)
        query = query_from_proto(proto, model, self._limits)
        call.next_index = query.plan.next_index(query.plan.first)
        with self._admission.admit(call.client, query, model.batch_size) as window:
            position = await self._mt19937(query, model)
            with model.stream(query, window, call.deadline, position, call.span) as stream:
                with self._open(stream):
                    while chunk := await stream.next_chunk(query.samples_per_message):
                        message = await self._encoded(chunk, stream)
                        yield message
                        call.next_index = chunk.next_index
                        model.sent(stream, chunk, len(message))
                _check_not_spent(stream)

    async def generate_samples(self, call: Call, data: bytes) -> bytes:
        """The one message of GenerateSamples."""
        proto = request_from_bytes(data, pb.GenerateSamplesRequest).query
        model = self._model(call, proto.model)
        query, most = bounded_query_from_proto(proto, model, self._limits)
        with self._admission.admit(call.client, query, model.batch_size, most) as window:
            position = await self._mt19937(query, model)
            with model.stream(query, window, call.deadline, position, call.span) as stream:
                await stream.wait_complete()
                _check_not_spent(stream)
                chunk = stream.rest()
                message = await self._encoded(chunk, stream)
                model.sent(stream, chunk, len(message))
                return message

    async def list_models(self, call: Call, data: bytes) -> bytes:
        """ListModelsResponse."""
        request_from_bytes(data, pb.ListModelsRequest)
        self._check_serving()
        models = [proto_from_model(model) for _, model in sorted(self._models.items())]
        return bytes(pb.ListModelsResponse(models=models).SerializeToString())

    async def get_model(self, call: Call, data: bytes) -> bytes:
        """GetModelResponse."""
        request = request_from_bytes(data, pb.GetModelRequest)
        model = self._model(call, request.model)
        options = options_from_proto(request.sampling, model.bundle.manifest.generator)
        response = pb.GetModelResponse(model=proto_from_model(model))
        if request.keep_fraction != 0:
            fraction = request.keep_fraction
            response.max_uncertainty = float(
                threshold_from_fraction(fraction, "", model.bundle, options)
            )
        return bytes(response.SerializeToString())

    def _check_serving(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _model(self, call: Call, name: str) -> ServedModel:
        self._check_serving()
        known = ", ".join(sorted(self._models))
        if not name and len(self._models) != 1:
            raise BadRequest(f"model is empty; this server has {len(self._models)}: {known}")
        model = self._models.get(name) if name else next(iter(self._models.values()))
        if model is None:
            raise UnknownModel(f"model is {name!r}; this server has {known}")
        call.model = model.name
        return model

    @contextmanager
    def _open(self, stream: Stream) -> Iterator[None]:
        """Streams that `drain` ends; unary calls may finish."""
        self._check_serving()  # draining may have begun since the call did
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.remove(stream)

    async def _encoded(self, chunk: Chunk, stream: Stream) -> bytes:
        if not chunk.pieces:
            return message_from_chunk(chunk, stream.query)
        loop = asyncio.get_running_loop()
        with self._tracing.encoding(stream.span, chunk.size):
            return await loop.run_in_executor(
                self._encoders, message_from_chunk, chunk, stream.query
            )

    async def _mt19937(self, query: Query, model: ServedModel) -> Mt19937Rows | None:
        """The position of an MT19937 stream, gone to its start where nobody waits for it."""
        if query.options.latent_source != "mt19937" or query.latents is not None:
            return None
        rows = Mt19937Rows(query.options.seed, model.bundle.manifest.generator.z_dim)
        if query.plan.stop > query.plan.first:
            start = int(query.plan.indices(query.plan.first, 1)[0])
            if start:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, rows.rows, [start - 1])
        return rows


def _check_not_spent(stream: Stream) -> None:
    """Raises RangeSpent when a stream ended short of what it was asked for."""
    if stream.query.plan.spent and not stream.counted:
        raise RangeSpent(stream.query.plan.spent)
