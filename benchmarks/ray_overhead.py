"""Time that Ray takes to write a data set, as a multiple of that of `labelmint download`.

python -m benchmarks.ray_overhead [--samples 1000] [--rounds 3] [--rate 100]

Both write the same samples of one server, image by image as PNG in Parquet files for Hugging Face,
compressed by zstd. Each is timed over all samples and over a few: the difference leaves out what
either takes to start. The rate of the server's engine is fixed in one comparison, and in the other
it has no limit, so that only reading, packing and writing take time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ray_scaling import BATCH, ray_of  # first: it sets variables for ray

# isort: split

import click
import pyarrow.parquet as parquet
import ray

from benchmarks.machine import machine_name
from benchmarks.ready_engine import Setting, serving
from labelmint.ray import LabelSource
from labelmint.ray.rows import hub_table

Write = Callable[[str, int, Path], None]  # of a target, up to an index, into a folder
FEW = 128  # samples, so that each of Ray's parts has a full batch of the engine
TASKS = 4  # of Ray at once, each with a thread of its own; the command has a pool of threads


@click.command()
@click.option("--samples", default=1000, help="Samples of a run.")
@click.option("--rounds", default=3, help="Pairs of runs.")
@click.option("--rate", default=100.0, help="Samples per second of the engine with a fixed rate.")
def main(samples: int, rounds: int, rate: float) -> None:
    fixed, free = (
        Setting(resolution=64, batch=BATCH, seconds_per_run=seconds)
        for seconds in (BATCH / rate, 0.0)
    )
    load = os.getloadavg()[0]
    # Ray forks, which must happen before this process has used gRPC.
    with serving(fixed) as first, serving(free) as second, ray_of(TASKS):
        pairs(second, 4 * BATCH, 1)  # workers start, and import labelmint
        found = {
            f"at {rate:g} samples/s": pairs(first, samples, rounds),
            "without a limit": pairs(second, samples, rounds),
        }
    print(f"machine: {machine_name()}, load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    for words, times in found.items():
        ratios = [ours / command for command, ours in times]
        command, ours = (statistics.median(side) for side in zip(*times, strict=True))
        print(
            f"{samples} samples {words}: Ray took {statistics.median(ratios):.2f} times as long as "
            f"labelmint download ({min(ratios):.2f} to {max(ratios):.2f}; {ours:.1f} and "
            f"{command:.1f} s)"
        )


def pairs(target: str, samples: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of the command and of Ray for these samples, without their starts; alternating."""
    return [
        (seconds_of(by_command, target, samples), seconds_of(by_ray, target, samples))
        for _ in range(rounds)
    ]


def seconds_of(write: Write, target: str, samples: int) -> float:
    """Seconds for `samples` more than a few."""
    few, all_of_them = (timed(write, target, end) for end in (FEW, FEW + samples))
    return all_of_them - few


def timed(write: Write, target: str, end_index: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        write(target, end_index, Path(folder))
        seconds = time.perf_counter() - began
        files = sorted(Path(folder).rglob("*.parquet"))
        found = sorted(i for file in files for i in parquet.read_table(file)["index"].to_pylist())
    assert found == list(range(end_index)), (write, len(found), end_index)
    return seconds


def by_command(target: str, end_index: int, folder: Path) -> None:
    words = ("download", "--target", target, "--out", f"{folder}/files", "--format", "hf")
    subprocess.run(
        [sys.executable, "-m", "labelmint", *words, "--end-index", str(end_index)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def by_ray(target: str, end_index: int, folder: Path) -> None:
    source = LabelSource(target, shards=2 * TASKS, end_index=end_index)
    tables = ray.data.read_datasource(source).map_batches(hub_table, batch_format="pyarrow")
    tables.write_parquet(f"{folder}/rows", compression="zstd", use_dictionary=False)


if __name__ == "__main__":
    main()
