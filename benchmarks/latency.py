"""Latency of GenerateSamples for one sample, and of a health check, idle and under load.

Under load, streams of other clients keep the engine busy all the time. Goal: at most two engine
batches more than idle for the sample, and 100 ms for the health check.

    python -m benchmarks.latency [--calls 300] [--streams 1]
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub

RUN_S = 0.02
ONE = pb.GenerateSamplesRequest(query=pb.SampleQuery(count=1))


@click.command()
@click.option("--calls", default=300, help="Number of calls of each kind.")
@click.option("--streams", default=1, help="Number of streams that keep the engine busy.")
def main(calls: int, streams: int) -> None:
    print(f"machine: {machine_name()}; an engine batch takes {RUN_S * 1e3:.0f} ms")
    with serving(Setting(seconds_per_run=RUN_S)) as address:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            sample = LabelServiceStub(channel).GenerateSamples
            health: Any = health_pb2_grpc.HealthStub(channel)
            kinds: dict[str, Callable[[], object]] = {
                "one sample": lambda: sample(ONE),
                "health": lambda: health.Check(health_pb2.HealthCheckRequest()),
            }
            idle = {kind: quantiles(call, calls) for kind, call in kinds.items()}
            with saturated(address, streams):
                busy = {kind: quantiles(call, calls) for kind, call in kinds.items()}
    print("                     p50      p95      p99  ms")
    for kind in idle:
        for state, found in (("idle", idle), ("busy", busy)):
            print(f"{kind:>11} {state}  " + "".join(f"{v * 1e3:9.1f}" for v in found[kind]))
    more = (busy["one sample"] - idle["one sample"]) / RUN_S
    print("difference in engine batches: " + ", ".join(f"{m:.1f}" for m in more) + " (goal 2)")


def quantiles(call: Callable[[], object], calls: int) -> "np.ndarray[tuple[int], np.dtype]":
    """50th, 95th and 99th percentile of a call's time, in seconds."""
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return np.quantile(seconds, [0.5, 0.95, 0.99])


@contextmanager
def saturated(address: str, streams: int) -> Iterator[None]:
    """Reads streams at full speed, each over its own connection, until the block ends."""
    stop = threading.Event()

    def read() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            call = LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest())
            for _ in call:
                if stop.is_set():
                    call.cancel()
                    return

    threads = [threading.Thread(target=read) for _ in range(streams)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    yield
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
