"""The label branch at 512 px in torch on a GPU: the paper's formula, the split form, compiled.

Sizes of HandsOff faces: D = 6,016, hidden 256 and 32, 19 classes, 10 members. Taps of one image
enter, mask and uncertainty leave. It also exports the branch as ONNX files for other runtimes.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_results import Results
from export.graph.label_branch import LabelBranch
from export.graph.spec import LabelSpec
from nets.config import channels_from_base
from nets.features import hypercolumn
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential
from nets.labels import jensen_shannon

PART, RESOLUTION, CLASSES, MEMBERS, HIDDEN, STRIP = "branch", 512, 19, 10, (256, 32), 1 << 15
ROUNDS = 10


def main(folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    if not torch.cuda.is_available():
        return results.add(PART, "left out", reason="torch has no CUDA device here")
    torch.set_grad_enabled(False)
    taps, interpreter = task()
    variants: list[tuple[str, Callable[[], Callable[[], Any]]]] = [
        ("paper, float32", lambda: paper(taps, interpreter, torch.float32, False)),
        ("paper, TF32", lambda: paper(taps, interpreter, torch.float32, True)),
        ("paper, float16", lambda: paper(taps, interpreter, torch.float16, False)),
        ("split, float32", lambda: _split(taps, interpreter, "float32", False)),
        ("split, float16", lambda: _split(taps, interpreter, "float16", False)),
        ("split compiled, float16", lambda: _split(taps, interpreter, "float16", True)),
    ]
    for name, make in variants:
        if results.has(PART, variant=name):
            continue
        try:
            results.add(PART, variant=name, **timed(make()))
        except Exception as error:  # the next variant may work
            results.add(PART, "failed", variant=name, reason=str(error).splitlines()[0][:120])
        torch.cuda.empty_cache()
    _export(taps, interpreter, folder, results)
    _onnxruntime(folder, taps, results)


def task() -> tuple[list[Any], Any]:
    torch.manual_seed(0)
    channels = channels_from_base(RESOLUTION, 32768)
    features = 2 * sum(channels)
    interpreter = Interpreter(
        (HeadConfig("segmentation", features, HIDDEN, CLASSES, MEMBERS),)
    ).eval()
    head = interpreter.head("segmentation")
    head.linear1.weight.data.normal_(0, features**-0.5)
    head.weight2.data.normal_(0, HIDDEN[0] ** -0.5)
    head.weight3.data.normal_(0, 1)
    taps = [torch.randn(1, c, 4 * 2**i, 4 * 2**i) for i, c in enumerate(channels) for _ in range(2)]
    return taps, interpreter


def paper(taps: list[Any], interpreter: Any, dtype: Any, tf32: bool) -> Any:
    """The paper's formula: upsamples every tap, concatenates, runs each member on every pixel."""
    head = interpreter.head("segmentation")
    members = [member_as_sequential(head, k).to("cuda", dtype) for k in range(MEMBERS)]
    there = [tap.to("cuda", dtype) for tap in taps]

    def run() -> Any:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x = hypercolumn(there, (RESOLUTION, RESOLUTION))
        x = x.reshape(x.shape[1], -1).t().contiguous()
        logits = torch.stack([member(x) for member in members]).float()
        votes = torch.nn.functional.one_hot(logits.argmax(-1), CLASSES).sum(0)
        return votes.argmax(-1).to(torch.uint8), jensen_shannon(logits)

    return run


def split_branch(taps: list[Any], interpreter: Any, precision: str) -> Any:
    dtype = torch.float16 if precision == "float16" else torch.float32
    channels = channels_from_base(RESOLUTION, 32768)
    branch = LabelBranch(
        interpreter,
        LabelSpec(RESOLUTION, 0, RESOLUTION, RESOLUTION, "segmentation"),
        taps[0],
        {4 * 2**i: c * (1 if i == 0 else 2) for i, c in enumerate(channels)},
        dtype,
        strip_pixels=STRIP,
    )

    class TapsToLabels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, *given: Any) -> Any:
            labels = self.branch([tap.to(dtype) for tap in given])
            assert labels.mask is not None and labels.uncertainty is not None
            return labels.mask, labels.uncertainty.float()

    return TapsToLabels().eval()


def _split(taps: list[Any], interpreter: Any, precision: str, compiled: bool) -> Any:
    """The split form, as it is served, run by torch."""
    torch.backends.cuda.matmul.allow_tf32 = False
    module = split_branch(taps, interpreter, precision).to("cuda")
    there = [tap.to("cuda") for tap in taps[1:]]
    run = torch.compile(module) if compiled else module
    return lambda: run(*there)


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    """Median time by CUDA events after two warm-ups, and peak memory above the start's."""
    run(), run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(ROUNDS):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended))
    peak = (torch.cuda.max_memory_allocated() - before) >> 20
    return {"ms": round(statistics.median(times), 3), "peak_MiB": peak}


def _export(taps: list[Any], interpreter: Any, folder: Path, results: Results) -> None:
    for precision in ("float16", "float32"):
        path = folder / f"branch.{precision}.onnx"
        if path.exists():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    split_branch(taps, interpreter, precision), tuple(taps[1:]), path,
                    input_names=[f"tap{i}" for i in range(len(taps) - 1)],
                    output_names=["mask", "uncertainty"], opset_version=17, dynamo=False,
                )  # fmt: skip
        except Exception as error:  # the exporter's dependencies may be missing
            reason = str(error).splitlines()[0][:120]
            results.add(PART, "failed", variant=f"export {precision}", reason=reason)


def _onnxruntime(folder: Path, taps: list[Any], results: Results) -> None:
    try:
        import onnxruntime as ort
    except ImportError:
        results.add(PART, "left out", variant="ONNX Runtime CUDA", reason="it is not installed")
        return
    provider = "CUDAExecutionProvider"
    if provider not in ort.get_available_providers():
        results.add(PART, "left out", variant="ONNX Runtime CUDA", reason="it has no CUDA")
        return
    for precision in ("float32", "float16"):
        path, name = folder / f"branch.{precision}.onnx", f"ONNX Runtime CUDA, {precision}"
        if not path.exists() or results.has(PART, variant=name):
            continue
        session = ort.InferenceSession(str(path), providers=[(provider, {"use_tf32": "0"})])
        if session.get_providers()[0] != provider:
            results.add(PART, "left out", variant=name, reason="CUDA did not become active")
            continue
        binding = session.io_binding()
        for i, tap in enumerate(taps[1:]):
            value = ort.OrtValue.ortvalue_from_numpy(tap.numpy(), "cuda", 0)
            binding.bind_ortvalue_input(f"tap{i}", value)
        for output in ("mask", "uncertainty"):
            binding.bind_output(output, "cuda")
        times = []
        for _ in range(ROUNDS + 2):
            began = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            times.append((time.perf_counter() - began) * 1e3)
        results.add(PART, variant=name, ms=round(statistics.median(times[2:]), 3))


if __name__ == "__main__":
    main(Path(sys.argv[2]))
