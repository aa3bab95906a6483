"""Cost of a refiner: engine time of a bundle with and without it, alternating.

make demo
python -m examples.refined_stream
python -m benchmarks.refiner [--batch 4] [--rounds 9]
"""

import statistics
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import machine_name
from bundle.open import open_bundle
from engines.open import EngineOptions, open_engine, open_mapping
from engines.protocol import Engine
from engines.sampling import default_options, ws_from_indices

RUNS = 4  # engine batches in a round


@click.command()
@click.option("--plain", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--refined", type=click.Path(path_type=Path), default=Path("demo/refined/bundle"))
@click.option("--batch", default=4, type=click.IntRange(1))
@click.option(
    "--threads",
    default=1,
    type=click.IntRange(1),
    help="Threads of the engine; idle ones count as CPU time.",
)
@click.option("--rounds", default=9, type=click.IntRange(1), help="Number of pairs of runs.")
def main(plain: Path, refined: Path, batch: int, threads: int, rounds: int) -> None:
    options = EngineOptions(batch_sizes=(batch,), threads=threads)
    bundle = open_bundle(plain)
    generator = bundle.manifest.generator
    mapping = open_mapping(bundle, options)
    ws = ws_from_indices(mapping, generator, default_options(generator), range(batch))
    without, with_one = open_engine(bundle, options), open_engine(open_bundle(refined), options)
    times_of(without, ws), times_of(with_one, ws)  # warm-up
    pairs = [(times_of(without, ws), times_of(with_one, ws)) for _ in range(rounds)]
    print(f"machine: {machine_name()}")
    print(f"{generator.resolution} px, batch {batch}, {rounds} pairs")
    for i, clock in enumerate(("wall", "CPU")):
        ratios = [b[i] / a[i] for a, b in pairs]
        ms = [
            1000 * statistics.median(times[i] for times in side) / (RUNS * batch)
            for side in zip(*pairs, strict=True)
        ]
        print(
            f"{clock} time: {ms[0]:.1f} ms per sample without the refiner, {ms[1]:.1f} with; ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def times_of(engine: Engine, ws: np.ndarray) -> tuple[float, float]:
    """Wall and CPU seconds of RUNS batches with all outputs."""
    limits = np.full(len(ws), np.inf, np.float32)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(RUNS):
        engine.run(ws, limits, engine.outputs)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
