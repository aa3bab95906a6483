"""Cost of a depth head, and time that calibration saves: engine time, alternating.

    make demo
    python -m benchmarks.heads [--threads 1] [--rounds 9]

The demo's ensemble is exported with and without its depth head. Each bundle runs whole, and cut to
the score as calibration runs it. All four give bit-identical scores.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec
import numpy as np

from benchmarks.machine import machine_name
from benchmarks.refiner import times_of
from bundle.open import open_bundle
from checkpoints import interpreter_from_file, write_interpreter
from engines.open import EngineOptions, open_engine, open_mapping
from engines.protocol import Engine
from engines.sampling import default_options, ws_from_indices
from examples.demo.__main__ import GENERATOR
from export.__main__ import main as export_command
from export.checks.calibration import open_score_engine
from nets.interpreter import Interpreter

BATCH = 4
PAIRS = (
    ("with depth", "without"),
    ("with depth, cut", "without, cut"),
    ("with depth", "with depth, cut"),
    ("without", "without, cut"),
)


@click.command()
@click.option("--interpreter", type=Path, default=Path("demo/interpreter.safetensors"))
@click.option(
    "--threads",
    default=1,
    type=click.IntRange(1),
    help="Threads of the engine; idle ones count as CPU time.",
)
@click.option(
    "--rounds", default=9, type=click.IntRange(1), help="Runs of each of the four engines."
)
def main(interpreter: Path, threads: int, rounds: int) -> None:
    with TemporaryDirectory() as folder:
        without = Path(folder, "without.safetensors")
        write_without_depth(interpreter, without)
        bundles = {
            "with depth": exported(interpreter, Path(folder, "with")),
            "without": exported(without, Path(folder, "without")),
        }
        options = EngineOptions(batch_sizes=(BATCH,), threads=threads)
        engines: dict[str, Engine] = {}
        for name, path in bundles.items():
            bundle = open_bundle(path)
            engines[name] = open_engine(bundle, options)
            engines[f"{name}, cut"] = open_score_engine(bundle, options)
        generator = bundle.manifest.generator
        mapping = open_mapping(bundle, options)
        ws = ws_from_indices(mapping, generator, default_options(generator), range(BATCH))
    check_scores(engines, ws)
    turns = [{name: times_of(e, ws) for name, e in engines.items()} for _ in range(rounds)]
    print(f"machine: {machine_name()}; batch {BATCH}, {rounds} rounds, threads: {threads}")
    for slow, fast in PAIRS:
        for i, clock in enumerate(("wall", "CPU")):
            ratios = [turn[slow][i] / turn[fast][i] for turn in turns]
            print(
                f"{clock} time, {slow} to {fast}: {statistics.median(ratios):.3f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


def write_without_depth(path: Path, out: Path) -> None:
    """Writes the same ensemble without its depth head."""
    interpreter, card = interpreter_from_file(path)
    heads = [head for head in card.heads if head.kind != "depth"]
    fewer = Interpreter(tuple(interpreter.head(head.kind).config for head in heads)).eval()
    state = interpreter.state_dict()
    fewer.load_state_dict({name: state[name] for name in fewer.state_dict()})
    write_interpreter(out, fewer, msgspec.structs.replace(card, heads=heads, depth=None))


def exported(interpreter: Path, out: Path) -> Path:
    """Exports a bundle of the demo's generator with these heads."""
    words = ["--generator", str(GENERATOR), "--interpreter", str(interpreter), "--out", str(out)]
    export_command(["bundle", *words, "--no-half"], standalone_mode=False)
    return out


def check_scores(engines: dict[str, Engine], ws: np.ndarray) -> None:
    """Runs each engine once, as warm-up; raises SystemExit if scores differ."""
    limits = np.full(len(ws), np.inf, np.float32)
    runs = [engine.run(ws, limits, ("uncertainty",)) for engine in engines.values()]
    if len({run.arrays["uncertainty"].tobytes() for run in runs}) != 1:
        raise SystemExit("the graphs give different scores")


if __name__ == "__main__":
    main()
