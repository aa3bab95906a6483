"""Samples per second with one and with two engines of a fixed rate in one server.

python -m benchmarks.devices [--seconds 4] [--rounds 5]
"""

import statistics
import time

import click

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint import Client

RUN_S = 0.04  # for a batch of 16 at 64 px: 400 samples per second for each engine


@click.command()
@click.option("--seconds", default=4.0, help="Seconds of each run.")
@click.option("--rounds", default=5, help="Number of pairs of runs.")
def main(seconds: float, rounds: int) -> None:
    one = Setting(resolution=64, seconds_per_run=RUN_S)
    two = Setting(resolution=64, seconds_per_run=RUN_S, engines=2)
    with serving(one) as first, serving(two) as second:
        pairs = [
            (rate_of(Client(first), seconds), rate_of(Client(second), seconds))
            for _ in range(rounds)
        ]
    ratios = [b / a for a, b in pairs]
    print(f"machine: {machine_name()}")
    print(
        f"one engine {statistics.median(a for a, _ in pairs):.0f} samples/s of "
        f"{one.batch / RUN_S:.0f}, two {statistics.median(ratios):.2f} times as many "
        f"({min(ratios):.2f} to {max(ratios):.2f}, goal 1.9)"
    )


def rate_of(client: Client, seconds: float) -> float:
    """Samples per second of one stream."""
    with client:
        batches = client.stream(batch_size=16)
        next(batches)
        began, received = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            received += len(next(batches).indices)
    return received / elapsed


if __name__ == "__main__":
    main()
