"""labelmint.v1.LabelService: its calls."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

import grpc

from labelmint.v1 import label_service_pb2 as pb
from service.delivery import Chunk, Stream
from service.encoding import message_from_chunk, parts_from_chunk
from service.errors import BadRequest, FailedPrecondition
from service.lifetime import Lifetime
from service.rpc.calls import Call, CallHandlers, request_from_bytes
from service.rpc.info import proto_from_model
from service.rpc.query import bounded_query_from_proto, query_from_proto
from service.rpc.sampling import options_from_proto, threshold_from_fraction
from service.rpc.serving import Serving, check_not_exhausted
from service.shared_memory import Slots, opened_slots

SERVICE: str = pb.DESCRIPTOR.services_by_name["LabelService"].full_name


class LabelService:
    """Answers calls from what is served."""

    def __init__(self, serving: Serving, calls: CallHandlers, shares_memory: bool) -> None:
        self._serving, self._calls, self._shares_memory = serving, calls, shares_memory

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a server."""
        calls = self._calls
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamSamples": calls.stream("StreamSamples", self.stream_samples),
                "StreamSharedSamples": calls.exchange(
                    "StreamSharedSamples", self.stream_shared_samples
                ),
                "GenerateSamples": calls.unary("GenerateSamples", self.generate_samples),
                "ListModels": calls.unary("ListModels", self.list_models),
                "GetModel": calls.unary("GetModel", self.get_model),
            },
        )

    async def stream_samples(self, call: Call, data: bytes) -> AsyncGenerator[bytes, None]:
        """Messages of StreamSamples."""
        proto = request_from_bytes(data, pb.StreamSamplesRequest).query
        model = self._serving.model(call, proto.model)
        query = query_from_proto(proto, model, self._serving.limits)
        call.next_index = query.plan.next_index(query.plan.first)
        async with self._serving.stream(call, query, model) as stream:
            lifetime = self._lifetime(call.next_index)
            with self._serving.stopping(stream.stop):
                while chunk := await stream.next_chunk(query.samples_per_message):
                    message = await self._encoded(chunk, stream)
                    yield message
                    call.next_index = chunk.next_index
                    model.sent(stream, chunk, len(message))
                    lifetime.check(stream, chunk, time.monotonic())
            check_not_exhausted(stream)

    async def stream_shared_samples(
        self, call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Places of messages that are written to the client's memory."""
        if not self._shares_memory:
            raise FailedPrecondition(
                "this server shares no memory; use StreamSamples, or start it with --shared-memory"
            )
        asked = _shared_requests(requests)
        first = await anext(asked, None)
        if first is None:
            raise BadRequest("there is no request; the first one has query and memory")
        model = self._serving.model(call, first.query.model)
        query = query_from_proto(first.query, model, self._serving.limits)
        call.next_index = query.plan.next_index(query.plan.first)
        with opened_slots(first.memory, call.peer, query.max_message_bytes) as slots:
            async with self._serving.stream(call, query, model) as stream:

                def stop(error: Exception) -> None:
                    stream.stop(error)
                    slots.stop(error)

                lifetime = self._lifetime(call.next_index)
                following = asyncio.create_task(slots.follow(asked))
                try:
                    with self._serving.stopping(stop):
                        while chunk := await stream.next_chunk(query.samples_per_message):
                            await slots.free()
                            size = await self._written(chunk, stream, slots)
                            response = pb.StreamSharedSamplesResponse(size=size)
                            yield bytes(response.SerializeToString())
                            call.next_index = chunk.next_index
                            model.sent(stream, chunk, size)
                            lifetime.check(stream, chunk, time.monotonic())
                finally:
                    following.cancel()
                check_not_exhausted(stream)

    async def generate_samples(self, call: Call, data: bytes) -> bytes:
        """The one message of GenerateSamples."""
        proto = request_from_bytes(data, pb.GenerateSamplesRequest).query
        model = self._serving.model(call, proto.model)
        query, most = bounded_query_from_proto(proto, model, self._serving.limits)
        async with self._serving.stream(call, query, model, most) as stream:
            await stream.wait_complete()
            check_not_exhausted(stream)
            chunk = stream.rest()
            message = await self._encoded(chunk, stream)
            model.sent(stream, chunk, len(message))
            return message

    async def list_models(self, call: Call, data: bytes) -> bytes:
        """ListModelsResponse."""
        request_from_bytes(data, pb.ListModelsRequest)
        self._serving.check()
        models = [proto_from_model(model) for model in self._serving.repository.models.values()]
        return bytes(pb.ListModelsResponse(models=models).SerializeToString())

    async def get_model(self, call: Call, data: bytes) -> bytes:
        """GetModelResponse."""
        request = request_from_bytes(data, pb.GetModelRequest)
        model = self._serving.model(call, request.model)
        options = options_from_proto(request.sampling, model.bundle)
        response = pb.GetModelResponse(model=proto_from_model(model))
        if request.keep_fraction != 0:
            fraction = request.keep_fraction
            response.max_uncertainty = float(
                threshold_from_fraction(fraction, "", model.bundle, options)
            )
        return bytes(response.SerializeToString())

    def _lifetime(self, next_index: int) -> Lifetime:
        return Lifetime(self._serving.max_stream_age_s, next_index, time.monotonic())

    async def _written(self, chunk: Chunk, stream: Stream, slots: Slots) -> int:
        def write() -> int:
            return slots.write(parts_from_chunk(chunk, stream.query))

        return await self._serving.encoded(stream, chunk.size, write)

    async def _encoded(self, chunk: Chunk, stream: Stream) -> bytes:
        return await self._serving.encoded(
            stream, chunk.size, partial(message_from_chunk, chunk, stream.query)
        )


async def _shared_requests(
    requests: AsyncIterator[bytes],
) -> AsyncIterator[pb.StreamSharedSamplesRequest]:
    async for data in requests:
        yield request_from_bytes(data, pb.StreamSharedSamplesRequest)
