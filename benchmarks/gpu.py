"""All benchmarks on a GPU, in calls of at most nine minutes.

Each part is a separate process with a time limit that writes each figure as soon as it is measured,
and is left out, with the reason, if a library is missing. However a call ends, its figures stay in
the folder, and the next call continues after them.

    python -m benchmarks.gpu [--folder build/gpu] [--budget-s 520] [--python-trt PATH] [PART ...]

Parts that use TensorRT run under `--python-trt`, by default the current Python.
"""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click

from benchmarks.gpu_cases import CASES, GOALS
from benchmarks.gpu_results import Results, table

TORCH, TENSORRT = "torch", "tensorrt"
# Part: which Python runs it, and its time limit in seconds; the most useful parts first.
PARTS = {
    "ceilings": (TORCH, 40),
    "branch": (TORCH, 120),
    "branch-fused": (TORCH, 120),
    "branch-tensorrt": (TENSORRT, 120),
    "bundles": (TORCH, 200),
    "rates": (TENSORRT, 400),
    "filter": (TENSORRT, 100),
    "server": (TENSORRT, 100),
}
NEEDS = {  # libraries of this Python; a part reports by itself what the other one lacks
    "ceilings": ("torch",),
    "branch": ("torch", "onnx"),
    "branch-fused": ("torch", "triton"),
    "bundles": ("torch", "onnx", "onnxruntime", "safetensors", "msgspec"),
}
MODULES = {
    "ceilings": "gpu_ceilings", "branch": "gpu_branch", "branch-tensorrt": "gpu_branch_tensorrt",
    "branch-fused": "gpu_branch_fused",
    "bundles": "gpu_bundles", "rates": "gpu_rates", "filter": "gpu_rates", "server": "gpu_rates",
}  # fmt: skip


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("build/gpu"),
    help="Folder for results.",
)
@click.option("--budget-s", default=520.0, help="Seconds that the whole call may take.")
@click.option("--python-trt", default=sys.executable, help="Path to a Python with TensorRT.")
def main(parts: tuple[str, ...], folder: Path, budget_s: float, python_trt: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + budget_s
    results = Results(folder / "results.jsonl")
    pythons = {TORCH: sys.executable, TENSORRT: python_trt}
    for name in parts or tuple(PARTS):
        kind, most = PARTS[name]
        left = min(most, end - time.monotonic())
        if left < 5:
            results.add(name, "left out", reason="no time left; call again to continue")
            continue
        lacking = [library for library in NEEDS.get(name, ()) if find_spec(library) is None]
        if lacking:
            results.add(name, "left out", reason=f"{', '.join(lacking)} not installed")
            continue
        command = [pythons[kind], "-m", f"benchmarks.{MODULES[name]}", name, str(folder)]
        print(f"== {name}, {left:.0f} s at most", flush=True)
        process = subprocess.Popen(command, start_new_session=True)
        try:
            if code := process.wait(left):
                results.add(name, "failed", reason=f"exit code {code}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and with it a server that it may have started
            process.wait()
            results.add(name, "cut off", reason=f"after {left:.0f} s; call again to continue")
    print_tables(results)


def print_tables(results: Results) -> None:
    """Prints all figures, then the parts that are not finished."""
    print("\n## Ceilings\n")
    print(table(results.measured("ceilings"), ("what", "value", "unit", "method")))
    print("\n## Label branch\n")
    parts = ("branch", "branch-fused", "branch-tensorrt")
    branch = [row for part in parts for row in results.measured(part)]
    eager = [row["ms"] for row in branch if row.get("variant") == "paper, float32"]
    for row in branch:
        if eager and "ms" in row:
            row["ratio to eager float32"] = round(eager[-1] / row["ms"], 1)
    columns = ("variant", "ms", "peak MiB", "ratio to eager float32", "build s")
    print(table(branch, (*columns, "mask differs", "score differs")))
    print("\n## Labeled samples per second\n")
    rates = results.measured("rates")
    for row in rates:
        row["goal"] = GOALS.get(row.get("case", ""), "")
    print(table(rates, ("case", "engine", "batch", "contexts", "per s", "bound per s", "goal")))
    missing = set(CASES) - {row.get("case", "") for row in rates}
    if missing:
        print(f"\nnot measured: {', '.join(sorted(missing))}")
    print("\n## Cost of filtering\n")
    print(table(results.measured("filter"), ("keep fraction", "kept", "ms", "bytes copied")))
    print("\n## Server and bare engine\n")
    print(table(results.measured("server"), ("case", "bare per s", "served per s", "ratio")))
    leftovers = [row for name in PARTS for row in results.of(name) if row["state"] != "measured"]
    print("\n## Not finished\n")
    print(table(leftovers, ("part", "variant", "case", "state", "reason")) if leftovers else "none")


if __name__ == "__main__":
    main()
