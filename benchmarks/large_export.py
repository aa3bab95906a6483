"""Time and memory of a large export: StyleGAN2 config f at 1024 px, labels at 512 px.

Random weights with the sizes of HandsOff faces: D = 6080, hidden 256 and 32, 19 classes, 10
members. Two steps are measured, each in a separate process to get its peak memory: the export
command, without calibration, and loading the graph and making one sample as a server does.

    python -m benchmarks.large_export [--folder DIR] [--half/--no-half]
"""

import tempfile
from pathlib import Path

import click

from benchmarks.machine import machine_name
from benchmarks.python_process import run_python
from benchmarks.random_weights import write_weights
from benchmarks.sizes import Size

SIZE = Size(1024, 32768, grid=512, hidden=(256, 32), classes=19, members=10)
GOALS = "goals 8 GB and 15 minutes"
FIRST_SAMPLE = """
import sys, time
from pathlib import Path
import numpy as np
from bundle import open_bundle
from engines import EngineOptions, open_engine
bundle = open_bundle(Path(sys.argv[1]), verify=False)
began = time.perf_counter()
engine = open_engine(bundle, EngineOptions(batch_sizes=(1,)))
loaded = time.perf_counter()
g = bundle.manifest.generator
ws = np.random.default_rng(0).standard_normal((1, g.num_ws, g.w_dim)).astype(np.float32)
result = engine.run(ws, np.full(1, np.inf, np.float32), engine.outputs)
print(f"session {loaded - began:.0f} s, one sample {time.perf_counter() - loaded:.1f} s")
"""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Folder to keep the files in.")
@click.option("--half/--no-half", default=True, help="Export the float16 graph too.")
def main(folder: Path | None, half: bool) -> None:
    print(f"machine: {machine_name()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        generator, interpreter = write_weights(folder, SIZE)
        seconds, peak, _ = run_python(
            "-m", "export", "bundle", "--generator", str(generator), "--interpreter",
            str(interpreter), "--out", str(folder / "bundle"), "--force", "--parity-samples", "1",
            "--half" if half else "--no-half", "--batch", "1",
        )  # fmt: skip
        print(f"export: {seconds / 60:.1f} minutes, peak {peak / 1e9:.2f} GB ({GOALS})", flush=True)
        _, peak, said = run_python("-c", FIRST_SAMPLE, str(folder / "bundle"))
        print(f"labeller.onnx in ONNX Runtime: {said}, peak {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
