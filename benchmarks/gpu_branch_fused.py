"""The label branch at 512 px by the fused kernel, compiled at run time, with several tile shapes.

Uses the weights and taps of benchmarks.gpu_branch. For each shape a CUDA graph is recorded from
taps to labels, including the sums of the coarse levels by torch, and compared with the paper's
formula.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_branch import RESOLUTION, paper, task, timed
from benchmarks.gpu_results import Results
from export.fused.graphs import fused_branch
from export.fused.launches import Tuning
from export.graph.label_branch import LabelBranch
from export.graph.spec import LabelSpec
from nets.config import channels_from_base

PART = "branch-fused"
BANDS = (128, 512, 1 << 20)  # tiles in a launch; the last value covers the whole image
# No (2, 2): it needs 250 to 312 KiB of shared memory at the published sizes; no GPU has that.
SHAPES = [
    Tuning(squares, tiles, chunk, 128, warps, stages)
    for squares, chunk, warps, stages in (
        ((1, 2), 64, 8, 2), ((1, 2), 128, 8, 2), ((1, 2), 64, 8, 3), ((1, 1), 64, 4, 2),
        ((1, 1), 128, 4, 2),
    )
    for tiles in BANDS
]  # fmt: skip


def main(folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    if not torch.cuda.is_available():
        return results.add(PART, "left out", reason="torch has no CUDA device here")
    torch.set_grad_enabled(False)
    taps, interpreter = task()
    expected = [x.cpu() for x in paper(taps, interpreter, torch.float32, False)()]
    torch.cuda.empty_cache()
    for tuning in SHAPES:
        variant = words(tuning)
        if results.has(PART, variant=variant):
            continue
        try:
            run, buffers = recorded(taps, interpreter, tuning)
            figures = timed(run)
        except Exception as error:  # such as too little shared memory; the next shape may work
            reason = " ".join(str(error).split())[:120]
            results.add(PART, "failed", variant=variant, reason=reason)
            continue
        mask, score = (buffers[n].cpu().flatten() for n in ("segmentation_labels", "scores"))
        figures["peak_MiB"] = sum(x.nbytes for x in buffers.values()) >> 20  # including weights
        results.add(
            PART,
            variant=variant,
            **figures,
            mask_differs=f"{(mask != expected[0].float()).float().mean():.1e}",
            score_differs=f"{(score - expected[1]).abs().max():.1e}",
        )


def words(tuning: Tuning) -> str:
    """Name of a shape in the table."""
    down, across = tuning.squares
    bands = "one table" if tuning.band_tiles == BANDS[-1] else f"bands of {tuning.band_tiles}"
    return (
        f"fused {8 * down} x {8 * across}, chunk {tuning.chunk}, {tuning.warps} warps, "
        f"{tuning.stages} stages, {bands}"
    )


def recorded(taps: list[Any], interpreter: Any, tuning: Tuning) -> tuple[Any, dict[str, Any]]:
    """Records a CUDA graph; returns a function that launches it, and its buffers."""
    from benchmarks.kernel_run import device_buffers, run_launches

    spec = LabelSpec(RESOLUTION, 0, RESOLUTION, RESOLUTION, "segmentation")
    channels = {
        4 * 2**i: c * (1 if i == 0 else 2)
        for i, c in enumerate(channels_from_base(RESOLUTION, 32768))
    }
    launches, graph = fused_branch(interpreter, spec, taps[0], channels, tuning)
    branch = LabelBranch(interpreter, spec, taps[0], channels, torch.float16)
    graph, there = graph.to("cuda"), [tap.to("cuda", torch.float16) for tap in taps[1:]]

    def features() -> dict[str, Any]:
        levels = dict(zip(branch.extents, branch.levels(there), strict=True))
        found: dict[str, Any] = graph(levels)
        return found

    buffers = device_buffers(launches, features())
    run_launches(launches, buffers, 1)  # compiles
    torch.cuda.synchronize()
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        for name, value in features().items():
            buffers[name].copy_(value)
        run_launches(launches, buffers, 1)
    return recording.replay, buffers


if __name__ == "__main__":
    main(Path(sys.argv[2]))
