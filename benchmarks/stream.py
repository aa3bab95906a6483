"""Samples per second over gRPC and of a bare loop over the engine, on one bundle.

Both sides make the same samples with the same engine and batch size. They alternate, and the ratio
is that of each pair of consecutive runs. Needs a bundle, such as that of `make demo`.

    python -m benchmarks.stream [--bundle demo/bundle] [--samples 512] [--rounds 7]
"""

import statistics
import time
from pathlib import Path

import click
import numpy as np
from tqdm import trange

from benchmarks.machine import machine_name
from bundle import open_bundle
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.protocol import Engine, Mapping
from examples.demo.serving import server
from labelmint import Client

SEED = 11


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--samples", default=512, help="Samples in each run.")
@click.option("--rounds", default=7, help="Number of pairs of runs.")
def main(folder: Path, samples: int, rounds: int) -> None:
    bundle = open_bundle(folder)
    options = EngineOptions()
    engine, mapping = open_engine(bundle, options), open_mapping(bundle, options)
    options_of_samples = default_options(bundle.manifest.generator, SEED)
    batch = engine.batch_sizes[-1]

    def bare() -> float:
        begin = time.perf_counter()
        for first in range(0, samples, batch):
            run_batch(engine, mapping, first)
        return time.perf_counter() - begin

    def run_batch(engine: Engine, mapping: Mapping, first: int) -> None:
        indices = np.arange(first, first + batch, dtype=np.uint64)
        ws = ws_from_indices(mapping, bundle.manifest.generator, options_of_samples, indices)
        engine.run(ws, np.full(batch, np.inf, np.float32), outputs)

    with server(folder) as address, Client(address) as client:
        outputs = tuple(
            name
            for name in ("image", "mask", "keypoints", "depth", "uncertainty")
            if name in engine.outputs
        )

        def streamed() -> float:
            begin = time.perf_counter()
            for _ in client.stream(batch_size=batch, seed=SEED, count=samples):
                pass
            return time.perf_counter() - begin

        bare(), streamed()
        pairs = [(bare(), streamed()) for _ in trange(rounds, desc="rounds")]

    ratios = [engine_s / stream_s for engine_s, stream_s in pairs]
    print(f"machine: {machine_name()}; engine {engine.name}, batch {batch}")
    print(f"stream / bare engine loop, {rounds} pairs of {samples} samples:")
    print(
        f"  median {statistics.median(ratios):.3f}, "
        f"from {min(ratios):.3f} to {max(ratios):.3f} (goal 0.95)"
    )


if __name__ == "__main__":
    main()
