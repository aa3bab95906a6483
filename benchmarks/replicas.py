"""Samples per second that one reader gets from one, two and three replicas of a fixed rate.

python -m benchmarks.replicas [--seconds 4] [--rounds 5]
"""

import statistics
from contextlib import ExitStack

import click

from benchmarks.devices import rate_of
from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint import Client

MOST = 3
ONE = Setting(resolution=64, seconds_per_run=0.04)  # 400 samples per second


@click.command()
@click.option("--seconds", default=4.0, help="Seconds of each run.")
@click.option("--rounds", default=5, help="Runs of each number of replicas, alternating.")
def main(seconds: float, rounds: int) -> None:
    with ExitStack() as stack:
        targets = [stack.enter_context(serving(ONE)) for _ in range(MOST)]
        runs = [
            [rate_of(Client(targets[:n], streams=n), seconds) for n in range(1, MOST + 1)]
            for _ in range(rounds)
        ]
    print(f"machine: {machine_name()}")
    print(f"one replica {statistics.median(run[0] for run in runs):.0f} samples/s of 400")
    for n in range(2, MOST + 1):
        ratios = [run[n - 1] / run[0] for run in runs]
        print(
            f"{n} replicas, streams={n}: {statistics.median(ratios):.2f} times as many "
            f"({min(ratios):.2f} to {max(ratios):.2f}, goal {0.95 * n:.2f})"
        )


if __name__ == "__main__":
    main()
