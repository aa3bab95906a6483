"""inference.GRPCInferenceService: the Open Inference Protocol v2, for clients such as Triton's.

ModelInfer does the same as GenerateSamples, with the same queries, engine batches and limits.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc

from labelmint import __version__
from service.errors import Disabled, Overloaded, PermissionDenied, Status
from service.metrics import Metrics
from service.models import ServedModel
from service.rpc import inference_messages as messages
from service.rpc.calls import Call, CallHandlers, request_from_bytes
from service.rpc.inference_description import (
    BACKEND,
    config_from_model,
    metadata_from_model,
    statistics_from_metrics,
)
from service.rpc.inference_exchange import Exchange
from service.rpc.inference_messages import SERVICE
from service.rpc.inference_request import check_version, inference_from_request
from service.rpc.inference_response import error_response, response_from_message
from service.rpc.repository_control import RepositoryControl
from service.rpc.serving import Serving, check_not_exhausted

__all__ = ["SERVICE", "InferenceService"]

EXTENSIONS = ("model_configuration", "model_repository", "statistics")
_log = logging.getLogger(__name__)


class InferenceService:
    """The methods of the protocol; those that are missing here answer UNIMPLEMENTED."""

    def __init__(
        self,
        serving: Serving,
        calls: CallHandlers,
        metrics: Metrics,
        control: RepositoryControl | None,
        ready: Callable[[], bool],
    ) -> None:
        """`control` None disables loading and unloading; `ready` tells whether calls are served."""
        self._serving, self._calls, self._metrics = serving, calls, metrics
        self._control, self._ready = control, ready
        self._exchanges: Counter[str] = Counter()  # open ModelStreamInfer calls by client

    def handler(self) -> grpc.GenericRpcHandler:
        """gRPC handler of all methods, to be added to a server."""
        unary = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "ModelInfer": self.model_infer,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
            "RepositoryModelUnload": self.repository_model_unload,
        }
        stream = "ModelStreamInfer"
        handlers = {name: self._calls.unary(name, method) for name, method in unary.items()}
        handlers[stream] = self._calls.exchange(stream, self.model_stream_infer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def server_live(self, call: Call, data: bytes) -> bytes:
        """ServerLiveResponse: always live, since it can answer."""
        request_from_bytes(data, messages.ServerLiveRequest)
        return _bytes(messages.ServerLiveResponse(live=True))

    async def server_ready(self, call: Call, data: bytes) -> bytes:
        """ServerReadyResponse: the same as the health service."""
        request_from_bytes(data, messages.ServerReadyRequest)
        return _bytes(messages.ServerReadyResponse(ready=self._ready()))

    async def server_metadata(self, call: Call, data: bytes) -> bytes:
        """ServerMetadataResponse."""
        request_from_bytes(data, messages.ServerMetadataRequest)
        response = messages.ServerMetadataResponse(
            name=BACKEND, version=__version__, extensions=EXTENSIONS
        )
        return _bytes(response)

    async def model_ready(self, call: Call, data: bytes) -> bytes:
        """ModelReadyResponse: false for an unknown model or version."""
        request = request_from_bytes(data, messages.ModelReadyRequest)
        model = self._serving.repository.models.get(request.name)
        ready = (
            self._ready()
            and model is not None
            and request.version in ("", model.bundle.manifest.bundle_id)
        )
        return _bytes(messages.ModelReadyResponse(ready=ready))

    async def model_metadata(self, call: Call, data: bytes) -> bytes:
        """ModelMetadataResponse."""
        request = request_from_bytes(data, messages.ModelMetadataRequest)
        return _bytes(metadata_from_model(self._model(call, request.name, request.version)))

    async def model_config(self, call: Call, data: bytes) -> bytes:
        """ModelConfigResponse."""
        request = request_from_bytes(data, messages.ModelConfigRequest)
        return _bytes(config_from_model(self._model(call, request.name, request.version)))

    async def model_statistics(self, call: Call, data: bytes) -> bytes:
        """ModelStatisticsResponse: for one model, or for all if none is named."""
        request = request_from_bytes(data, messages.ModelStatisticsRequest)
        self._serving.check()
        models = list(self._serving.repository.models.values())
        if request.name:
            models = [self._model(call, request.name, request.version)]
        return _bytes(statistics_from_metrics(models, self._metrics.registry))

    async def model_infer(self, call: Call, data: bytes) -> bytes:
        """ModelInferResponse: the requested samples."""
        request = request_from_bytes(data, messages.ModelInferRequest)
        return await self._infer(call, request, streamed=False)

    async def model_stream_infer(
        self, call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """ModelStreamInferResponses: one per request, in the order of the requests."""
        self._check_exchanges(call.client)
        exchange = Exchange(partial(self._answer, call))
        self._exchanges[call.client] += 1
        try:
            with self._serving.stopping(exchange.stop):
                async for message in exchange.answers(requests):
                    yield message
        finally:
            self._exchanges[call.client] -= 1
            self._exchanges += Counter()  # removes clients with no open call

    async def repository_index(self, call: Call, data: bytes) -> bytes:
        """RepositoryIndexResponse: all models that are or were served, or failed to load."""
        request = request_from_bytes(data, messages.RepositoryIndexRequest)
        self._serving.check()
        response = messages.RepositoryIndexResponse()
        for listed in self._serving.repository.listed():
            if listed.state == "READY" or not request.ready:
                response.models.add(
                    name=listed.name,
                    version=listed.bundle_id,
                    state=listed.state,
                    reason=listed.reason,
                )
        return _bytes(response)

    async def repository_model_load(self, call: Call, data: bytes) -> bytes:
        """RepositoryModelLoadResponse, once the model is ready."""
        control = self._control_for(call)
        request = request_from_bytes(data, messages.RepositoryModelLoadRequest)
        _log.info("%s loads model %.100r", call.client, request.model_name)
        await control.load(request)
        return _bytes(messages.RepositoryModelLoadResponse())

    async def repository_model_unload(self, call: Call, data: bytes) -> bytes:
        """RepositoryModelUnloadResponse, once new calls for the model are refused."""
        control = self._control_for(call)
        request = request_from_bytes(data, messages.RepositoryModelUnloadRequest)
        _log.info("%s unloads model %.100r", call.client, request.model_name)
        await control.unload(request)
        return _bytes(messages.RepositoryModelUnloadResponse())

    def _check_exchanges(self, client: str) -> None:
        """Limits the open ModelStreamInfer calls, idle ones included. (Each of their requests is
        also admitted on its own.) Raises Overloaded."""
        limits = self._serving.limits
        for count, limit, name in (
            (self._exchanges[client], limits.max_client_streams, "max_client_streams"),
            (self._exchanges.total(), limits.max_streams, "max_streams"),
        ):
            if count >= limit:
                raise Overloaded(
                    f"{count} ModelStreamInfer calls are open, {name} is {limit}; end one first"
                )

    def _control_for(self, call: Call) -> RepositoryControl:
        """Raises Disabled, PermissionDenied, NotServing."""
        if self._control is None:
            raise Disabled(
                "this server does not load models by calls; start it with --admin-token-file"
            )
        if not call.is_admin():
            raise PermissionDenied(
                "this call is for administrators; send a token of --admin-token-file as metadata "
                "authorization: Bearer TOKEN"
            )
        self._serving.check()
        return self._control

    def _model(self, call: Call, name: str, version: str) -> ServedModel:
        model = self._serving.model(call, name)
        check_version(version, model)
        return model

    async def _infer(self, call: Call, request: Any, streamed: bool) -> bytes:
        model = self._serving.model(call, request.model_name)
        inference = inference_from_request(request, model, self._serving.limits)
        query, samples = inference.query, inference.samples
        async with self._serving.stream(call, query, model, samples) as stream:
            await stream.wait_complete()
            check_not_exhausted(stream)
            message = stream.rest()
            encode = partial(response_from_message, message, inference, model, streamed)
            data = await self._serving.encoded(stream, message.size, encode)
            model.sent(stream, message, len(data))
            return data

    async def _answer(self, call: Call, data: bytes) -> bytes:
        """The response to one request of a stream; an error of the request becomes its
        error_message."""
        request_id = model_name = ""

        async def infer(own: Call) -> bytes:
            nonlocal request_id, model_name
            request = request_from_bytes(data, messages.ModelInferRequest)
            request_id, model_name = request.id[:256], request.model_name[:256]
            own.request_bytes = len(data)
            return await self._infer(own, request, streamed=True)

        response = await self._calls.within(call, "ModelInfer", infer)
        if isinstance(response, Status):
            message = f"{response.code.name}: {response.message}"
            return error_response(message, request_id, model_name)
        return response


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())
