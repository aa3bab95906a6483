"""A filtered stream that keeps nothing, alone and beside 16 more: silences, and repeated work.

Engines that compute 0.5 to 500 rows a second serve clients whose filter rejects every sample. For
each rate: the longest time without a message, which must stay far under the client's limit of 30 s,
and the rows computed for each row examined, which is 1.00 when no stream was begun again.

    python -m benchmarks.heartbeats [--seconds 40] [--rates 0.5,5,50,500]
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import click
import grpc

from benchmarks.machine import machine_name
from engines.fake import FakeEngine, FakeMapping, FakeOptions, fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects
from service.config import Config
from service.metrics import Metrics
from service.models import ServedModel
from service.server import Server

COMPANY = 17  # the stream and 16 others
RUN_S, MAX_BATCH = 0.4, 8  # an engine run takes about this long, if its batch is within bounds
NOTHING = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0)


@click.command()
@click.option("--seconds", default=40.0, help="Seconds of engine time for each row of the table.")
@click.option("--rates", default="0.5,5,50,500", help="Rows that the engine computes a second.")
def main(seconds: float, rates: str) -> None:
    print(f"machine: {machine_name()}")
    print("rows/s  streams  longest silence  computed per examined  reconnects")
    for rate in map(float, rates.split(",")):
        for streams in (1, COMPANY):
            silence_s, ratio, reconnects = measured(rate, streams, seconds)
            print(f"{rate:6g} {streams:8d} {silence_s:14.2f} s {ratio:22.2f} {reconnects:11d}")


def measured(rate: float, streams: int, seconds: float) -> tuple[float, float, int]:
    """The longest silence in seconds, rows computed per row examined, and calls begun again."""
    examined = max(1, round(rate * seconds / streams))  # by each stream
    reconnects, silences = Reconnects(), []
    with serving(rate) as (port, computed):
        options = [("grpc.use_local_subchannel_pool", 1)]

        def read(number: int) -> None:
            start = number * examined
            query = pb.SampleQuery(start_index=start, end_index=start + examined, filter=NOTHING)
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                silences.append(longest_silence(LabelServiceStub(channel), query, reconnects))

        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(read, range(streams)))
        return max(silences), computed() / (examined * streams), reconnects.count


def longest_silence(stub: LabelServiceStub, query: pb.SampleQuery, reconnects: Reconnects) -> float:
    """Reads a stream to its end as the client does; the longest time between two messages."""

    def open_call(rest: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        call = stub.StreamSamples(pb.StreamSamplesRequest(query=rest), timeout=timeout_s)
        return OpenedCall(call, "server")

    messages = Prefetch(ResumingStream(open_call, query, Patience(), reconnects), 1 << 20)
    arrivals = [time.monotonic()]
    while messages.get() is not None:
        arrivals.append(time.monotonic())
    messages.close()
    return max(later - earlier for earlier, later in pairwise(arrivals))


@contextmanager
def serving(rate: float) -> Iterator[tuple[int, Callable[[], float]]]:
    """Serves a fake model; yields the port, and a function that tells the rows computed so far."""
    batch = min(MAX_BATCH, max(1, int(rate * RUN_S)))
    started: list[Server] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        bundle, metrics = fake_bundle(resolution=16), Metrics()
        engine = FakeEngine(bundle.manifest, FakeOptions(seconds_per_run=batch / rate), (batch,))
        mapping = FakeMapping(bundle.manifest.generator)
        model = ServedModel("fake", bundle, (engine,), mapping, metrics.of_model("fake"))
        async with Server(Config(bundles=(), listen="127.0.0.1:0"), metrics).running() as server:
            await server.serve([model])
            started.append(server)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait()
    server = started[0]

    def computed() -> float:
        name, labels = "labelmint_computed_samples_total", {"model": "fake"}
        return server.metrics.registry.get_sample_value(name, labels) or 0.0

    try:
        yield server.port, computed
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


if __name__ == "__main__":
    main()
