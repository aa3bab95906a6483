"""Export of StyleGAN3-T with the published channels: time, size, and milliseconds a sample.

Random weights. The time is that of `export bundle` for images in float32, with its comparison of
one sample. A sample of the bundle in ONNX Runtime is compared with one of nets.stylegan3 in eager
torch, batch 1, on as many threads, in alternating pairs.

    python -m benchmarks.stylegan3 [--rounds N] [--threads N] [RESOLUTION]...
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.machine import machine_name
from benchmarks.python_process import run_python
from bundle import open_bundle
from bundle.manifest import LABELLER
from checkpoints import GeneratorCard, card_from_config, write_generator
from engines import EngineOptions, open_engine
from nets.alias_free import alias_free_design, channels_of_design
from nets.config import GeneratorConfig
from nets.stylegan3 import Generator


def random_generator(resolution: int) -> Generator:
    """Configuration T as published, with random weights and their magnitudes."""
    torch.manual_seed(0)
    design = alias_free_design(resolution)
    config = GeneratorConfig(
        resolution,
        channels_of_design(design),
        mapping_layers=2,
        conv_clamp=256,
        family="stylegan3",
        alias_free=design,
    )
    generator = Generator(config).eval().requires_grad_(False)
    generator.synthesis(torch.randn(1, config.num_ws, config.w_dim), magnitude_decay=0.0)
    return generator


def write(generator: Generator, path: Path) -> None:
    """Writes the weights and a card without truncation."""
    config = generator.config
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan3",
        config=card_from_config(config),
        view_layers=0,
        truncation_psi=1.0,
        truncation_cutoff=config.num_ws,
        licences=["CC0-1.0"],
        provenance="random",
    )
    write_generator(path, generator, card)


def measure(resolution: int, rounds: int, threads: int) -> None:
    """Exports, then compares; prints one line of each."""
    generator = random_generator(resolution)
    config = generator.config
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(generator, folder / "generator.safetensors")
        seconds, peak, _ = run_python(
            "-m", "export", "bundle", "--generator", str(folder / "generator.safetensors"),
            "--out", str(folder / "bundle"), "--parity-samples", "1", "--no-half", "--batch", "1",
        )  # fmt: skip
        graph = folder / "bundle" / LABELLER["float32"]
        size = sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))
        print(
            f"{resolution} px: export {seconds:.0f} s, peak {peak / 1e9:.2f} GB, "
            f"graph {size / 1e6:.0f} MB, {sum(p.numel() for p in generator.parameters()) / 1e6:.1f}"
            " M parameters",
            flush=True,
        )
        options = EngineOptions(batch_sizes=(1,), threads=threads)
        engine = open_engine(open_bundle(folder / "bundle"), options)
        draws = np.random.default_rng(0)
        ws = draws.standard_normal((1, config.num_ws, config.w_dim), np.float32)
        limit, pairs = np.full(1, np.inf, np.float32), []
        for _ in range(rounds + 1):
            served = seconds_of(lambda: engine.run(ws, limit, ("image",)))
            eager = seconds_of(lambda: generator.synthesis(torch.from_numpy(ws)))
            pairs.append((served, eager))
    for clock in ("wall", "cpu"):
        times = [(served[clock], eager[clock]) for served, eager in pairs[1:]]  # one warms up
        ours, theirs = (1e3 * statistics.median(t) for t in zip(*times, strict=True))
        ratios = [b / a for a, b in times]
        print(
            f"{resolution} px, {clock} time: {ours:.0f} ms a sample in ONNX Runtime, {theirs:.0f} "
            f"ms in eager torch; ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def seconds_of(call: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of a call; a busy machine lengthens the first only."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


@click.command()
@click.argument("resolutions", type=int, nargs=-1)
@click.option("--rounds", type=int, default=5, help="Pairs after the first, which warms up.")
@click.option("--threads", type=int, default=2, help="Threads of both sides.")
def main(resolutions: tuple[int, ...], rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    print(f"machine: {machine_name()}")
    for resolution in resolutions or (64, 256):
        measure(resolution, rounds, threads)


if __name__ == "__main__":
    main()
