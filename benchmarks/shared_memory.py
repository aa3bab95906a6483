"""Samples per second of one reader through shared memory and through the socket, alternating.

Batches of 8 samples of 256 px, image and mask, RAW. The engine costs nothing, and its own batches
are larger, so that their overhead is not what is measured; client and server keep freed memory.
Goal: a ratio of 2, as the median of seven pairs.

    python -m benchmarks.shared_memory [--engine-batch 32] [--seconds 3] [--rounds 7]
"""

import statistics
import time

import click

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint import Client
from service.process import keep_freed_memory

BATCH = 8


@click.command()
@click.option("--engine-batch", default=32, help="Samples in an engine batch.")
@click.option("--seconds", default=3.0, help="Seconds of each run.")
@click.option("--rounds", default=7, help="Number of pairs of runs.")
def main(engine_batch: int, seconds: float, rounds: int) -> None:
    keep_freed_memory()  # in the client process too
    print(f"machine: {machine_name()}")
    with serving(Setting(256, batch=engine_batch)) as target:
        pairs = [
            (rate_of(target, False, seconds), rate_of(target, True, seconds)) for _ in range(rounds)
        ]
    ratios = [shared / socket for socket, shared in pairs]
    socket, shared = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"socket {socket:.0f} samples/s, shared memory {shared:.0f}: "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, goal 2)"
    )


def rate_of(target: str, shared_memory: bool, seconds: float) -> float:
    """Samples per second of one stream."""
    with Client(target, shared_memory=shared_memory) as client:
        batches = client.stream(BATCH, outputs=["image", "mask"], codecs=["raw"])
        next(batches)
        began, received = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            received += len(next(batches))
    return received / elapsed


if __name__ == "__main__":
    main()
