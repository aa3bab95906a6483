"""What a refiner costs: engine time of a bundle with one against the same bundle without, in turns.

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

RUNS = 4  # engine batches of a round


@click.command()
@click.option("--plain", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--refined", type=click.Path(path_type=Path), default=Path("demo/refined/bundle"))
@click.option("--batch", default=4, type=click.IntRange(1))
@click.option("--rounds", default=9, type=click.IntRange(1), help="Pairs of runs.")
def main(plain: Path, refined: Path, batch: int, rounds: int) -> None:
    options = EngineOptions(batch_sizes=(batch,))
    bundle = open_bundle(plain)
    generator = bundle.manifest.generator
    mapping = open_mapping(bundle, options)
    ws = ws_from_indices(mapping, generator, default_options(generator), range(batch))
    without, with_one = open_engine(bundle, options), open_engine(open_bundle(refined), options)
    seconds_of(without, ws), seconds_of(with_one, ws)  # warm-up
    pairs = [(seconds_of(without, ws), seconds_of(with_one, ws)) for _ in range(rounds)]
    ratios = [b / a for a, b in pairs]
    ms = [1000 * statistics.median(side) / (RUNS * batch) for side in zip(*pairs, strict=True)]
    print(f"machine: {machine_name()}")
    print(
        f"{generator.resolution} px, batch {batch}: {ms[0]:.1f} ms a sample without the refiner, "
        f"{ms[1]:.1f} with it; ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}, {rounds} pairs)"
    )


def seconds_of(engine: Engine, ws: np.ndarray) -> float:
    """Wall time of some batches with all outputs."""
    limits = np.full(len(ws), np.inf, np.float32)
    begin = time.perf_counter()
    for _ in range(RUNS):
        engine.run(ws, limits, engine.outputs)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
