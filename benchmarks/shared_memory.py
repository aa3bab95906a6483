"""Samples per second through shared memory against the socket, for one reader, in turns.

Batches of 8 samples of 256 px, image and mask, RAW, from an engine that costs nothing and whose
own batches are larger, so that they are not what is measured; both sides keep freed memory.
Goal: 2, the median of seven pairs.

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
@click.option("--engine-batch", default=32, help="Samples of an engine's batch.")
@click.option("--seconds", default=3.0, help="Of each run.")
@click.option("--rounds", default=7, help="Pairs of runs.")
def main(engine_batch: int, seconds: float, rounds: int) -> None:
    keep_freed_memory()  # the client's side too
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
