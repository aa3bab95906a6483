"""A real server on a free port, on a thread of its own, over fake engines."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import pytest

from bundle.open import Bundle
from engines.fake import FakeEngine, FakeMapping, FakeOptions, fake_bundle
from engines.protocol import Engine
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import Config
from service.loading import OpenModel
from service.metrics import Metrics
from service.models import ServedModel
from service.server import Server
from tests.hangs import HANG_S


@dataclass(frozen=True)
class FakeModel:
    """What a test wants served."""

    name: str = "fake"
    bundle: Bundle = field(default_factory=lambda: fake_bundle(resolution=16))
    options: FakeOptions = field(default_factory=FakeOptions)
    batch_sizes: tuple[int, ...] = (8,)
    engines: int = 1
    batch_delay_s: float = 0.0

    def opened(self, metrics: Metrics) -> ServedModel:
        engines: list[Engine] = [
            FakeEngine(self.bundle.manifest, self.options, self.batch_sizes)
            for _ in range(self.engines)
        ]
        mapping = FakeMapping(self.bundle.manifest.generator)
        return ServedModel(
            self.name, self.bundle, tuple(engines), mapping, metrics.of_model(self.name),
            self.batch_delay_s,
        )  # fmt: skip


@dataclass
class RunningServer:
    """A served model set, and the means to talk to it from the test's thread."""

    stub: Any
    channel: grpc.Channel
    server: Server
    loop: asyncio.AbstractEventLoop
    end: Callable[[], None]  # ends the server; so does the end of the test

    def call(self, work: Callable[[Server], Any]) -> Any:
        """Runs a coroutine of the server's on its loop."""
        return asyncio.run_coroutine_threadsafe(work(self.server), self.loop).result(HANG_S)

    def stream(self, timeout: float = HANG_S, **query: Any) -> Any:
        request = pb.StreamSamplesRequest(query=pb.SampleQuery(**query))
        return self.stub.StreamSamples(request, timeout=timeout)

    def generate(self, timeout: float = HANG_S, **query: Any) -> pb.GenerateSamplesResponse:
        request = pb.GenerateSamplesRequest(query=pb.SampleQuery(**query))
        answer: pb.GenerateSamplesResponse = self.stub.GenerateSamples(request, timeout=timeout)
        return answer


@dataclass(frozen=True)
class Refusal:
    """How a call failed."""

    code: grpc.StatusCode
    message: str
    trailers: dict[str, Any]
    error: Any


def refusal(run: Callable[[], Any]) -> Refusal:
    """Runs a call that has to fail."""
    with pytest.raises(grpc.RpcError) as caught:
        run()
    error: Any = caught.value
    trailers = {entry.key: entry.value for entry in error.trailing_metadata()}
    return Refusal(error.code(), error.details() or "", trailers, error)


@contextmanager
def served(
    models: Sequence[FakeModel] = (FakeModel(),),
    config: Config | None = None,
    open_named: OpenModel | None = None,
) -> Iterator[RunningServer]:
    """Runs a server of fake models until the block ends."""
    config = config or Config(bundles=(), listen="127.0.0.1:0", metrics_port=0)
    opened = partial(_opened, models)
    with served_by(config, opened, open_named) as server:
        yield server


def _opened(models: Sequence[FakeModel], metrics: Metrics) -> list[ServedModel]:
    return [model.opened(metrics) for model in models]


@contextmanager
def served_by(
    config: Config,
    open_models: Callable[[Metrics], Sequence[ServedModel]],
    open_named: OpenModel | None = None,
) -> Iterator[RunningServer]:
    """Runs a server until the block ends."""
    started: list[Server] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        metrics = Metrics()
        async with Server(config, metrics, open_named).running() as server:
            await server.serve(open_models(metrics))
            started.append(server)
            ready.set()
            await stop.wait()

    def run_to_the_end() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # leaves no task behind
            runner.run(run())

    thread = threading.Thread(target=run_to_the_end)
    thread.start()

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # ended before
            loop.call_soon_threadsafe(stop.set)
        thread.join(HANG_S)
        assert not thread.is_alive()

    try:
        assert ready.wait(HANG_S)
        with channel_to(started[0].port) as channel:
            yield RunningServer(LabelServiceStub(channel), channel, started[0], loop, end)
    finally:
        end()


def channel_to(port: int, *options: tuple[str, int]) -> grpc.Channel:
    """A channel of its own connection."""
    everything = [
        ("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1),
        *options,
    ]  # fmt: skip
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=everything)
