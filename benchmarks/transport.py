"""Throughput of server and transport, with an engine that costs nothing: MB/s on one stream.

Samples are images and masks, RAW. The client is the generated stub, which parses each message and
does not decode it. Rounds alternate between a server that keeps freed memory, as
`python -m service run` does, and one with glibc's defaults.

    python -m benchmarks.transport [--seconds 3] [--rounds 5]
"""

import statistics
import time

import click
import grpc

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.process import keep_freed_memory

GOAL_MB_S = 1200
QUERY = pb.SampleQuery(
    outputs=[pb.OUTPUT_IMAGE, pb.OUTPUT_MASK], accept_codecs=[pb.CODEC_RAW], max_message_samples=64
)


@click.command()
@click.option("--seconds", default=3.0, help="Seconds of each run.")
@click.option("--rounds", default=5, help="Number of runs of each setting.")
def main(seconds: float, rounds: int) -> None:
    keep_freed_memory()  # in the client process too
    print(f"machine: {machine_name()}")
    for resolution in (256, 512):
        kept: list[float] = []
        default: list[float] = []
        size = 0
        with (
            serving(Setting(resolution)) as tuned,
            serving(Setting(resolution, keep_memory=False)) as plain,
        ):
            for _ in range(rounds):
                rate, size = rate_of(tuned, seconds)
                kept.append(rate)
                default.append(rate_of(plain, seconds)[0])
        ratio = statistics.median(a / b for a, b in zip(kept, default, strict=True))
        print(
            f"{resolution} px, messages of {size / (1 << 20):.2f} MiB: "
            f"{statistics.median(kept):.0f} MB/s ({min(kept):.0f} to {max(kept):.0f}), "
            f"{ratio:.2f} times glibc's defaults (goal {GOAL_MB_S} MB/s)",
            flush=True,
        )


def rate_of(address: str, seconds: float) -> tuple[float, int]:
    """MB/s of one stream, and the size of a message in bytes."""
    options = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(address, options) as channel:
        call = LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest(query=QUERY))
        size = next(call).ByteSize()  # the first message includes connecting
        began, received = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            received += next(call).ByteSize()
        call.cancel()
    return received / elapsed / 1e6, size


if __name__ == "__main__":
    main()
