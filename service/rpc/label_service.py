"""The calls of labelmint.v1.LabelService: bytes of requests -> bytes of responses."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import grpc

from engines.learned import calibration_digests
from engines.sampling_request import (
    has_balance,
    options_from_proto,
    threshold_from_fraction,
)
from labelmint.v1 import label_service_pb2 as pb
from service.config import ServerLimits
from service.delivery import Message, Stream
from service.encoding import bytes_from_message, parts_from_message
from service.errors import BadRequest, FailedPrecondition
from service.lifetime import Lifetime
from service.models import ServedModel
from service.rpc.calls import Call, CallHandlers, request_from_bytes
from service.rpc.info import proto_from_model
from service.rpc.query import bounded_query_from_proto, query_from_proto
from service.rpc.serving import Serving, check_not_exhausted
from service.shared_memory import Slots, opened_slots

T = TypeVar("T")
SERVICE: str = pb.DESCRIPTOR.services_by_name["LabelService"].full_name


class LabelService:
    """Answers calls with samples and descriptions of the served models."""

    def __init__(self, serving: Serving, calls: CallHandlers, shares_memory: bool) -> None:
        self._serving, self._calls, self._shares_memory = serving, calls, shares_memory
        # One thread, because several would hold up the event loop.
        self._fitting = ThreadPoolExecutor(1, "fitting")

    def handler(self) -> grpc.GenericRpcHandler:
        """The calls by name, for a gRPC server."""
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

    async def stream_samples(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """Yields serialized StreamSamplesResponses."""
        proto = request_from_bytes(request, pb.StreamSamplesRequest).query
        model = self._serving.model(call, proto.model)
        query = await self._resolved(query_from_proto, proto, model)
        call.next_index = query.plan.next_index(query.plan.first)
        async with self._serving.stream(call, query, model) as stream:
            lifetime = self._lifetime(call.next_index)
            with self._serving.stopping(stream.stop):
                while message := await stream.next_message(query.samples_per_message):
                    data = await self._encoded(message, stream)
                    message = message.without_arrays()  # the caller may never read
                    yield data
                    call.next_index = message.next_index
                    model.sent(stream, message, len(data))
                    lifetime.check(stream, message, time.monotonic())
            check_not_exhausted(stream)

    async def stream_shared_samples(
        self, call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Writes messages to the client's memory; yields their sizes, serialized."""
        if not self._shares_memory:
            raise FailedPrecondition(
                "this server shares no memory; use StreamSamples, or start it with --shared-memory"
            )
        parsed = _parsed_requests(requests)
        first = await anext(parsed, None)
        if first is None:
            raise BadRequest("there is no request; the first one must have query and memory")
        call.request_bytes = first.ByteSize()
        model = self._serving.model(call, first.query.model)
        query = await self._resolved(query_from_proto, first.query, model)
        call.next_index = query.plan.next_index(query.plan.first)
        with opened_slots(first.memory, call.peer, query.max_message_bytes) as slots:
            async with self._serving.stream(call, query, model) as stream:
                stream.on_stop = slots.stop
                lifetime = self._lifetime(call.next_index)
                following = asyncio.create_task(slots.follow(parsed))
                try:
                    with self._serving.stopping(stream.stop):
                        while message := await stream.next_message(query.samples_per_message):
                            await slots.wait_free()
                            size = await self._written(message, stream, slots)
                            message = message.without_arrays()
                            response = pb.StreamSharedSamplesResponse(size=size)
                            yield bytes(response.SerializeToString())
                            call.next_index = message.next_index
                            model.sent(stream, message, size)
                            lifetime.check(stream, message, time.monotonic())
                finally:
                    following.cancel()
                check_not_exhausted(stream)

    async def generate_samples(self, call: Call, request: bytes) -> bytes:
        """A serialized GenerateSamplesResponse with all samples."""
        proto = request_from_bytes(request, pb.GenerateSamplesRequest).query
        model = self._serving.model(call, proto.model)
        query, max_samples = await self._resolved(bounded_query_from_proto, proto, model)
        async with self._serving.stream(call, query, model, max_samples) as stream:
            await stream.wait_complete()
            check_not_exhausted(stream)
            message = stream.rest()
            data = await self._encoded(message, stream)
            model.sent(stream, message, len(data))
            return data

    async def list_models(self, call: Call, request: bytes) -> bytes:
        """A serialized ListModelsResponse."""
        request_from_bytes(request, pb.ListModelsRequest)
        self._serving.check()
        models = [proto_from_model(model) for model in self._serving.repository.models.values()]
        return bytes(pb.ListModelsResponse(models=models).SerializeToString())

    async def get_model(self, call: Call, request: bytes) -> bytes:
        """A serialized GetModelResponse."""
        proto = request_from_bytes(request, pb.GetModelRequest)
        model = self._serving.model(call, proto.model)
        options = options_from_proto(proto.sampling, model.bundle)
        response = pb.GetModelResponse(model=proto_from_model(model))
        digests = calibration_digests(model.bundle.manifest, options)
        if digests is not None:
            response.calibration.thresholds_digest = digests.thresholds
            response.calibration.content_digest = digests.content
        if proto.keep_fraction != 0:
            fraction = proto.keep_fraction
            if proto.sampling.edits:
                raise FailedPrecondition(
                    f"keep_fraction is {fraction:g} and sampling has edits; it is calibrated on "
                    "samples without edits: leave one of them out"
                )
            response.max_uncertainty = float(
                threshold_from_fraction(fraction, "", model.bundle, options)
            )
        return bytes(response.SerializeToString())

    async def _resolved(
        self,
        resolve: Callable[[pb.SampleQuery, ServedModel, ServerLimits], T],
        proto: pb.SampleQuery,
        model: ServedModel,
    ) -> T:
        """A checked query. With balance or keep_by the calibration's content is read and coins are
        fitted, which would hold up other streams."""
        limits = self._serving.limits
        if has_balance(proto.filter) or proto.filter.keep_by:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._fitting, resolve, proto, model, limits)
        return resolve(proto, model, limits)

    def _lifetime(self, next_index: int) -> Lifetime:
        return Lifetime(self._serving.max_stream_age_s, next_index, time.monotonic())

    async def _encoded(self, message: Message, stream: Stream) -> bytes:
        return await self._serving.encoded(
            stream, message.size, partial(bytes_from_message, message, stream.query)
        )

    async def _written(self, message: Message, stream: Stream, slots: Slots) -> int:
        """Encodes a message into the next slot; its size in bytes."""

        def write() -> int:
            return slots.write(parts_from_message(message, stream.query))

        return await self._serving.encoded(stream, message.size, write)


async def _parsed_requests(
    requests: AsyncIterator[bytes],
) -> AsyncIterator[pb.StreamSharedSamplesRequest]:
    async for data in requests:
        yield request_from_bytes(data, pb.StreamSharedSamplesRequest)
