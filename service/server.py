"""Wires the server together: gRPC services, health, reflection, probes and models on one event
loop."""

import asyncio
import ipaddress
import logging
import math
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from service.admission import RequestRate
from service.config import Config
from service.errors import StartError
from service.lifetime import CONNECTION_SHARE, LEAST_CONNECTION_AGE_S
from service.listening import address_of, listening_sockets
from service.loading import OpenModel, open_model
from service.metrics import Metrics
from service.models import ServedModel
from service.probes import Probes, probe_server
from service.repository import Repository, RepositoryLimits
from service.rpc import inference, label_service
from service.rpc.bodies import WINDOW_BYTES, RequestBodies
from service.rpc.callers import Authentication, bearer_token, caller_of
from service.rpc.calls import CallHandlers, Context
from service.rpc.health import Health
from service.rpc.inference import InferenceService
from service.rpc.inference_messages import pool_with_messages
from service.rpc.label_service import LabelService
from service.rpc.repository_control import RepositoryControl
from service.rpc.serving import Serving
from service.tls import credentials_from_files
from service.tokens import Tokens
from service.tracing import tracing_to
from service.watch import Watch

ENCODING_THREADS = 2
# Time to send the last trailers. Open health watches would use up a longer time completely.
FLUSH_S = 0.25
ALIVE_WITHIN_S = 10.0  # the event loop counts as alive if its heartbeat is not older
KEEPALIVE_MS = 60_000  # until a silent connection is asked, and again until it has to have answered
# Calls that wait for the event loop: from the first number on, gRPC cancels some at random.
FEW_PENDING_CALLS, MAX_PENDING_CALLS = 8_000, 10_000
FIRST_LOADS_S = 60.0  # that loads of --watch keep calls waiting, unless no model is served by then
_NAMES = (health.OVERALL_HEALTH, label_service.SERVICE, inference.SERVICE)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)


class Server:
    """The server of one process.

    `running` listens, `serve` answers calls, `drain` ends all calls before the block of `running`
    is left.
    """

    def __init__(
        self, config: Config, metrics: Metrics, open_named: OpenModel | None = None
    ) -> None:
        """`open_named` opens models that are loaded later; None: loading.open_model."""
        self.config, self.metrics = config, metrics
        self.port = 0  # set by `running`
        self.metrics_port: int | None = None  # set by `running`; None without HTTP
        # Gets the exception of a bug that ends the server.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._encoders = ThreadPoolExecutor(ENCODING_THREADS, "encoding")
        callers = None if config.token_file is None else Tokens(config.token_file)
        admins = None if config.admin_token_file is None else Tokens(config.admin_token_file)
        for flag, file in (("token-file", callers), ("admin-token-file", admins)):
            if file is not None:
                metrics.watch_token_file(flag, partial(getattr, file, "unusable"))
        tokens = [file for file in (callers, admins) if file is not None]
        self._credentials = None if config.tls is None else credentials_from_files(config.tls)
        self._tracing = tracing_to(config.otlp_endpoint)
        client_of = partial(caller_of, tokens=tokens)
        self._calls = CallHandlers(
            metrics,
            RequestRate(config.limits.max_client_requests_per_s),
            client_of,
            self._tracing,
            partial(_is_admin, admins),
        )
        self.repository = Repository(
            open_named or partial(open_model, config=config, metrics=metrics),
            metrics,
            self._tracing,
            RepositoryLimits(config.load_timeout_s, config.model_drain_s),
            self._update_health,
            self._fail,
        )
        self._serving = Serving(self.repository, config, self._encoders, self._tracing)
        control = RepositoryControl(config, self.repository) if admins is not None else None
        self._services = (
            LabelService(self._serving, self._calls, config.shared_memory),
            InferenceService(self._serving, self._calls, metrics, control, lambda: self.ready),
        )
        self._health = Health(client_of)
        bodies = RequestBodies(config.limits, client_of, metrics)
        interceptors = (bodies,) if callers is None else (Authentication(tokens, metrics), bodies)
        self._grpc = grpc.aio.server(interceptors=interceptors, options=_grpc_options(config))
        self._open = False  # whether calls are answered
        self._heartbeat = time.monotonic()  # when the event loop last ran `_beat`
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        """Listens until the block ends; calls get UNAVAILABLE until `serve`. Raises StartError."""
        async with AsyncExitStack() as stack:
            await self._update_health()
            self._start_probes(stack)
            # Exit callbacks run in reverse: first calls end, then the computation they wait for.
            stack.push_async_callback(self._end_computing)
            await self._start_grpc(stack)
            self._spawn(self._beat())
            yield self

    @property
    def ready(self) -> bool:
        """Whether calls are served: between `serve` and `drain`, with at least one model, and no
        model with a lost device."""
        return self._open and bool(self.repository.models) and not self._lost

    @property
    def _lost(self) -> bool:
        return any(model.lost for model in self.repository.models.values())

    async def serve(self, models: Sequence[ServedModel]) -> None:
        """Loads the bundles of the --watch directory, then answers calls.

        `models` are open already; they are closed with the server.
        """
        self.repository.serve(models)
        if self.config.watch is not None:
            reserved = [bundle.name for bundle in self.config.bundles]
            watch = Watch(self.config.watch, self.repository, reserved)
            await watch.poll(FIRST_LOADS_S)
            self._spawn(watch.run(self.config.watch_interval_s))
        self._serving.serve()
        self._open = True
        await self._update_health()

    async def drain(self) -> None:
        """Reports not ready, waits `drain_delay_s`, ends streams so that clients can resume, and
        gives the remaining calls `drain_grace_s`."""
        self._open = False
        await self._update_health()
        await asyncio.sleep(self.config.drain_delay_s)
        self._serving.drain()
        await self._calls.ended(self.config.drain_grace_s)
        await self._grpc.stop(FLUSH_S)

    def _start_probes(self, stack: AsyncExitStack) -> None:
        if self.config.metrics_port is None:
            return
        probes = Probes(self._alive, lambda: self.ready, self.metrics.registry)
        server = probe_server(
            host_and_port(self.config.listen)[0], self.config.metrics_port, probes
        )
        self.metrics_port = stack.enter_context(server)

    async def _start_grpc(self, stack: AsyncExitStack) -> None:
        services = (self._health, *self._services)
        self._grpc.add_generic_rpc_handlers([service.handler() for service in services])
        names = (*_NAMES[1:], health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc, pool_with_messages())
        self.port = self._bind()
        # In reverse order: stop the gRPC server, then wait until cancelled calls have ended.
        stack.push_async_callback(self._calls.ended, FLUSH_S)
        stack.push_async_callback(self._grpc.stop, None)
        await self._grpc.start()

    def _bind(self) -> int:
        """Binds every address of --listen; returns the port. Raises StartError."""
        listen, (host, port) = self.config.listen, host_and_port(self.config.listen)
        if self._credentials is None and not is_loopback(listen):
            _log.warning(
                "%s accepts unencrypted calls from other machines; give --tls-certificate and "
                "--tls-key, or listen on 127.0.0.1",
                listen,
            )
        with ExitStack() as stack:
            sockets = [
                stack.enter_context(one)
                for one in listening_sockets(f"--listen {listen}", host, port)
            ]
            addresses = [address_of(bound) for bound in sockets]
        if port == 0 and len(addresses) == 1:
            addresses = [listen]  # any other process could take a free port meanwhile
        for address in addresses:  # gRPC binds them itself
            try:
                if self._credentials is None:
                    port = self._grpc.add_insecure_port(address)
                else:
                    port = self._grpc.add_secure_port(address, self._credentials)
            except RuntimeError as error:
                raise StartError(
                    f"--listen {listen} cannot be bound to {address}: {error}"
                ) from error
        return port

    async def _end_computing(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.repository.close()
        self._encoders.shutdown()
        self._tracing.close()

    async def _update_health(self) -> None:
        for name in _NAMES:
            self._health.set(name, _SERVING if self.ready else _NOT_SERVING)

    def _alive(self) -> bool:
        """False also with a lost device, because only a restarted process can use it again."""
        return time.monotonic() - self._heartbeat < ALIVE_WITHIN_S and not self._lost

    async def _beat(self) -> None:
        while True:
            self._heartbeat = time.monotonic()
            await asyncio.sleep(1)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._report_failure)
        self._tasks.append(task)

    def _report_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def host_and_port(listen: str) -> tuple[str, int]:
    """ "[::1]:50051" -> ("::1", 50051)"""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(listen: str) -> bool:
    """Whether only this machine can connect to HOST:PORT."""
    host, _ = host_and_port(listen)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_admin(admins: Tokens | None, context: Context) -> bool:
    token = bearer_token(context.invocation_metadata())
    return admins is not None and token is not None and admins.name_of(token) is not None


def _grpc_options(config: Config) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", config.limits.max_request_bytes),
        ("grpc.max_send_message_length", config.limits.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
        # Clients may send keepalive pings every 10 s, also between calls.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_concurrent_streams", config.limits.max_connection_streams),
        # gRPC cancels honest calls too; its defaults are what eight connections may have open. A
        # call that waits takes 15 to 30 KB.
        ("grpc.server.max_pending_requests", FEW_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        # What arrives of a request that is not received yet. Without the first, gRPC grants 4 MiB
        # and more to each call.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        # Ends connections whose peer is gone, or does not read.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
    ]
    if config.max_stream_age_s:
        # Open calls finish on an old connection, however long they take.
        age_s = max(CONNECTION_SHARE * config.max_stream_age_s, LEAST_CONNECTION_AGE_S)
        options.append(("grpc.max_connection_age_ms", math.ceil(age_s * 1000)))
    return options
