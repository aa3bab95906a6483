"""Speed of `labeller.onnx` with its up-convolutions and with their low-pass folded into one kernel.

    make demo
    python -m benchmarks.up_convolutions [--threads 1] [--rounds 7]

The earlier graphs had one transposed convolution in place of a smaller one and a depthwise one: of
6x6 for StyleGAN2, of 4x4 for StyleGAN1. Both graphs of a network have the same weights and latents,
and run in alternation. Networks: the demo's, and StyleGAN2 and StyleGAN1 at 256 px with ten members
of the published sizes and random weights. Outputs differ by rounding only.
"""

import copy
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu_cases import CONFIG_F, STYLEGAN1
from benchmarks.machine import machine_name
from benchmarks.random_weights import write_weights
from benchmarks.sizes import Size
from examples.demo.__main__ import GENERATOR
from export.bundle_from_weights import quiet_exporter
from export.graph.labeller import Labeller
from export.graph.stylegan1 import ServedDoubling
from export.graph.stylegan2 import UpConvolution
from export.graph.to_onnx import labeller_onnx
from export.weights import WeightFiles, weights_from_files

NETWORKS = {
    "demo, 64 px": None,
    "StyleGAN2, 256 px": Size(256, CONFIG_F, 256, (256, 32), 19, 10),
    "StyleGAN1, 256 px": Size(256, STYLEGAN1, 256, (128, 32), 20, 10, "stylegan1"),
}


@click.command()
@click.option("--interpreter", type=Path, default=Path("demo/interpreter.safetensors"))
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads of ONNX Runtime.")
@click.option("--rounds", default=7, type=click.IntRange(1), help="Runs of each graph.")
@click.option("--batch", "batches", multiple=True, default=(1, 4), type=click.IntRange(1))
@click.option(
    "--network", "names", multiple=True, default=tuple(NETWORKS), type=click.Choice(list(NETWORKS))
)
def main(
    interpreter: Path, threads: int, rounds: int, batches: tuple[int, ...], names: tuple[str, ...]
) -> None:
    print(f"machine: {machine_name()}; {rounds} pairs, threads: {threads}\n")
    print("| network | batch | ms per sample, folded | now | ratio, CPU time | ratio, wall |")
    print("|---|---|---|---|---|---|")
    for name in names:
        size = NETWORKS[name]
        with TemporaryDirectory() as folder:
            files = (GENERATOR, interpreter) if size is None else write_weights(Path(folder), size)
            weights = WeightFiles(files[0], interpreter=files[1])
            graphs = Graphs(Path(folder), weights, threads)
        for batch in batches:
            print(f"| {name} | {batch} | {graphs.compared(batch, rounds)} |", flush=True)


@dataclass(frozen=True)
class Times:
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


class Graphs:
    """Both graphs of one network, in ONNX Runtime as the engine sets it up."""

    def __init__(self, folder: Path, files: WeightFiles, threads: int) -> None:
        weights = weights_from_files(files)
        now = Labeller(weights.generator, weights.interpreter, weights.spec, boxes=0)
        self.shape = (now.synthesis.num_ws, now.synthesis.w_dim)
        self.sessions = []
        for name, labeller in (("folded", folded(now)), ("now", now)):
            path = folder / f"{name}.onnx"
            with quiet_exporter():
                labeller_onnx(labeller, path)
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.sessions.append(session)

    def compared(self, batch: int, rounds: int) -> str:
        """Milliseconds per sample of both, and median, least and largest ratio of old to new."""
        ws = np.random.default_rng(0).standard_normal((batch, *self.shape)).astype(np.float32)
        feed = {"ws": ws, "max_uncertainty": np.full(batch, np.inf, np.float32)}
        images = [session.run(["image"], feed)[0].astype(int) for session in self.sessions]
        if np.abs(images[0] - images[1]).max() > 1:
            raise SystemExit("the two graphs draw different images")
        pairs = [[timed(session, feed) for session in self.sessions] for _ in range(rounds)]
        ms = [
            1e3 / batch * statistics.median(t.cpu for t in side)
            for side in zip(*pairs, strict=True)
        ]
        cells = [f"{ms[0]:.1f} | {ms[1]:.1f}"]
        for ratios in (
            [old.cpu / new.cpu for old, new in pairs], [old.wall / new.wall for old, new in pairs]
        ):  # fmt: skip
            middle = statistics.median(ratios)
            cells.append(f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        return " | ".join(cells)


def timed(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    session.run(None, feed)
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def folded(labeller: Labeller) -> Labeller:
    """A copy with one transposed convolution in each up-convolution, as the graphs had it."""
    labeller = copy.deepcopy(labeller)
    for module in list(labeller.modules()):
        if isinstance(module, ServedDoubling) and module.sums is not None:
            module.weight, module.sums = _convolved(module.weight, module.sums), None
        for name, child in module.named_children():
            if isinstance(child, UpConvolution):
                setattr(module, name, FoldedUpConvolution(child))
    return labeller


class FoldedUpConvolution(nn.Module):
    """`UpConvolution` as one transposed convolution with a 6x6 kernel."""

    weight: Tensor

    def __init__(self, up: UpConvolution) -> None:
        super().__init__()
        self.register_buffer("weight", _convolved(up.weight, up.fir))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, stride=2, padding=2)


def _convolved(weight: Tensor, fir: Tensor) -> Tensor:
    """weight [I, O, k, k], fir [O, 1, m, m] of a depthwise convolution -> a kernel of k + m - 1."""
    i, o, k, _ = weight.shape
    m = fir.shape[-1]
    flat = weight.double().reshape(i * o, 1, k, k)
    both = F.conv2d(flat, fir[:1].double(), padding=m - 1)
    return both.reshape(i, o, k + m - 1, k + m - 1).to(weight.dtype)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
