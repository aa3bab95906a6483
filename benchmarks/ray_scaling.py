"""Samples per second of a Ray data set from one, two and four engines of a fixed rate.

python -m benchmarks.ray_scaling [--samples 2000] [--rounds 3] [--rate 100]

Each engine is a server of its own, so that Ray reads from as many as there are; a line says what
starting Ray cost. `benchmarks.ray_overhead` compares its writer with `labelmint download`.
"""

import os

# Before ray is imported. It sends nothing home, needs no token on this host, and a busy machine may
# take its time.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_raylet_start_wait_time_s="600"
)

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
import ray

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint.ray import LabelSource

ENGINES = (1, 2, 4)
BATCH = 16  # samples of an engine run
STORE_BYTES = 200 << 20
ADDRESS = "127.0.0.2"  # for 127.0.0.1 Ray takes the address of the network


@click.command()
@click.option("--samples", default=2000, help="Samples of a run with one engine.")
@click.option("--rounds", default=3, help="Runs of each number of engines, alternating.")
@click.option("--rate", default=100.0, help="Samples per second of one engine.")
def main(samples: int, rounds: int, rate: float) -> None:
    setting = Setting(resolution=64, batch=BATCH, seconds_per_run=BATCH / rate)
    with ExitStack() as stack:
        # Ray forks, which must happen before this process has used gRPC.
        targets = [stack.enter_context(serving(setting)) for _ in range(max(ENGINES))]
        started_s = stack.enter_context(ray_of(max(ENGINES)))
        first_s = seconds_of(targets[:1], BATCH)  # workers start, and import labelmint
        seconds_of(targets, 64 * BATCH)  # all other workers, too
        runs = [
            [n * samples / seconds_of(targets[:n], n * samples) for n in ENGINES]
            for _ in range(rounds)
        ]
    print(f"machine: {machine_name()}, load {os.getloadavg()[0]:.1f}")
    print(
        f"Ray started in {started_s:.1f} s, and its first {BATCH} samples came in {first_s:.1f} s"
    )
    one = statistics.median(run[0] for run in runs)
    print(f"1 engine: {one:.0f} samples/s of {rate:.0f}")
    for place, n in enumerate(ENGINES[1:], 1):
        ratios = [run[place] / run[0] for run in runs]
        print(
            f"{n} engines: {statistics.median(ratios):.2f} times as many "
            f"({min(ratios):.2f} to {max(ratios):.2f}, goal {0.95 * n:.2f})"
        )


@contextmanager
def ray_of(cpus: int) -> Iterator[float]:
    """A Ray of this host alone; yields the seconds that its start took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False,
            log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder,
            _node_ip_address=ADDRESS,
        )  # fmt: skip
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield time.perf_counter() - began
        finally:
            ray.shutdown()


def seconds_of(targets: list[str], samples: int) -> float:
    """Seconds until images and masks of all samples were read once.

    Two calls are open for each engine, so that it has work when one of them ends.
    """
    calls = 2 * len(targets)
    source = LabelSource(targets, shards=2 * calls, end_index=samples, outputs=["image", "mask"])
    began = time.perf_counter()
    dataset = ray.data.read_datasource(source, num_cpus=0.25, concurrency=calls)
    rows = sum(len(batch["index"]) for batch in dataset.iter_batches(batch_size=64))
    assert rows == samples, (rows, samples)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
