"""Speed of the label branch and of the paper's formula, with the same weights and taps.

Both sides turn one image's taps into a mask and an uncertainty map: the served graph in ONNX
Runtime, and eager torch as the paper states it (upsample every tap, concatenate, run each member on
every pixel). Rounds alternate between the two, so that other load on the machine affects both; the
result is the median of the rounds' ratios. Peak memory is measured in fresh processes.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph.label_branch import LabelBranch
from export.graph.spec import LabelSpec
from nets.features import hypercolumn
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential, published_hidden
from nets.labels import jensen_shannon
from nets.stylegan2 import channels_from_base

CHANNEL_BASES = {64: 4096, 128: 8192, 256: 16384, 512: 32768}
Labels = tuple[NDArray[np.uint8], NDArray[np.float32]]
Side = Literal["served", "literal"]


@dataclass(frozen=True)
class Setting:
    """Sizes of one comparison."""

    resolution: int
    members: int
    classes: int
    threads: int
    strip_pixels: int
    tile: int


def sizes(setting: Setting) -> list[tuple[int, int]]:
    """(Side length, channels) of every level, ascending."""
    r = setting.resolution
    channels = channels_from_base(r, CHANNEL_BASES[r])
    return [(4 * 2**i, c) for i, c in enumerate(channels)]


class Task:
    """Random weights and the taps of one image."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting = setting
        features = 2 * sum(c for _, c in sizes(setting))
        hidden = published_hidden(setting.classes)
        config = HeadConfig("segmentation", features, hidden, setting.classes, setting.members)
        self.interpreter = Interpreter((config,)).eval()
        head = self.interpreter.head("segmentation")
        for weight, fan in ((head.linear1.weight, features), (head.weight2, hidden[0])):
            weight.data.normal_(0, fan**-0.5)  # so that members disagree at some pixels
        head.weight3.data.normal_(0, 1)
        self.taps = [torch.randn(1, c, e, e) for e, c in sizes(setting) for _ in range(2)]


class TapsToLabels(nn.Module):
    """The label branch alone, with tensors as outputs."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        r = task.setting.resolution
        self.branch = LabelBranch(
            task.interpreter,
            LabelSpec(r, 0, r, r, "segmentation"),
            task.taps[0],
            {e: c * (1 if e == 4 else 2) for e, c in sizes(task.setting)},
            torch.float32,
            tile=task.setting.tile,
            strip_pixels=task.setting.strip_pixels,
        )

    def forward(self, *taps: Tensor) -> tuple[Tensor, Tensor]:
        labels = self.branch(list(taps))
        assert labels.mask is not None and labels.uncertainty is not None
        return labels.mask.to(torch.uint8), labels.uncertainty


def export(task: Task, path: Path) -> None:
    """Exports the branch alone; its inputs are all taps but the constant."""
    taps = task.taps[1:]  # the constant input of StyleGAN2 is a weight
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TapsToLabels(task).eval(),
            tuple(taps),
            path,
            input_names=[f"tap{i}" for i in range(len(taps))],
            output_names=["mask", "uncertainty"],
            opset_version=17,
            dynamo=False,
        )


class Served:
    """The exported branch in a session of ONNX Runtime, set up as the engine does."""

    def __init__(self, path: Path, taps: list[NDArray[np.float32]], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        start = time.perf_counter()
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.load_s = time.perf_counter() - start
        self.feed = {f"tap{i}": tap for i, tap in enumerate(taps)}

    def __call__(self) -> Labels:
        mask, uncertainty = self.session.run(None, self.feed)
        return mask, uncertainty


class PaperFormula:
    """The paper's formula in eager torch."""

    def __init__(self, task: Task) -> None:
        self.taps, self.resolution = task.taps, task.setting.resolution
        head = task.interpreter.head("segmentation")
        self.members = [member_as_sequential(head, k) for k in range(task.setting.members)]

    @torch.no_grad()
    def __call__(self) -> Labels:
        x = hypercolumn(self.taps, (self.resolution, self.resolution))
        x = x.reshape(x.shape[1], -1).t().contiguous()  # [H * W, D]
        logits = torch.stack([member(x) for member in self.members])
        votes = nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=0)
        shape = (1, self.resolution, self.resolution)
        mask = votes.argmax(dim=-1).to(torch.uint8).reshape(shape)
        return mask.numpy(), jensen_shannon(logits).reshape(shape).numpy()


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def memory_of(side: Side, setting: Setting) -> int:
    """Peak memory in bytes for one image, measured in a fresh process, without weights and taps."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
        path = Path(folder) / "branch.onnx"
        if side == "served":
            export(Task(setting), path)
        return pool.apply(_growth, (side, setting, path))


def _growth(side: Side, setting: Setting, path: Path) -> int:
    torch.set_num_threads(setting.threads)
    run: Served | PaperFormula
    if side == "served":
        shapes = [(1, c, e, e) for e, c in sizes(setting) for _ in range(2)][1:]
        run = Served(path, [np.ones(s, np.float32) for s in shapes], setting.threads)
    else:
        run = PaperFormula(Task(setting))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_bytes()
    run()
    return peak_bytes() - before


def compare(setting: Setting, rounds: int) -> None:
    task = Task(setting)
    with tempfile.TemporaryDirectory() as folder:
        export(task, Path(folder) / "branch.onnx")
        taps = [tap.numpy() for tap in task.taps[1:]]
        served = Served(Path(folder) / "branch.onnx", taps, setting.threads)
    literal = PaperFormula(task)
    (mask, score), (expected, expected_score) = served(), literal()
    wall: dict[Side, list[float]] = {"served": [], "literal": []}
    cpu: dict[Side, list[float]] = {"served": [], "literal": []}
    sides: tuple[tuple[Side, Served | PaperFormula], ...] = (
        ("served", served),
        ("literal", literal),
    )
    for _ in range(rounds):
        for side, run in sides:
            began, began_cpu = time.perf_counter(), time.process_time()
            run()
            wall[side].append(time.perf_counter() - began)
            cpu[side].append(time.process_time() - began_cpu)
    ratio = statistics.median(b / a for a, b in zip(wall["served"], wall["literal"], strict=True))
    cpu_ratio = statistics.median(b / a for a, b in zip(cpu["served"], cpu["literal"], strict=True))
    print(
        f"{setting.resolution:4d} px  {statistics.median(wall['literal']) * 1e3:8.0f} ms  "
        f"{statistics.median(wall['served']) * 1e3:7.1f} ms  ratio {ratio:5.1f}  "
        f"(CPU time {min(cpu['literal']) * 1e3:.0f} / {min(cpu['served']) * 1e3:.0f} ms, "
        f"{cpu_ratio:.1f})  session {served.load_s:.2f} s  "
        f"labels equal {(mask == expected).mean():.6f}, "
        f"uncertainty within {np.abs(score - expected_score).max():.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--strip-pixels", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=8)
    parser.add_argument("--no-memory", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {arguments.members} members, {arguments.classes} classes")
    print("          eager torch     served")
    for resolution in arguments.resolutions:
        setting = Setting(
            resolution,
            arguments.members,
            arguments.classes,
            arguments.threads,
            arguments.strip_pixels,
            arguments.tile,
        )
        compare(setting, arguments.rounds)
        if not arguments.no_memory:
            twice = Setting(**{**vars(setting), "members": 2 * setting.members})
            served, doubled = memory_of("served", setting), memory_of("served", twice)
            print(
                f"         peak memory: eager {memory_of('literal', setting) >> 20} MiB, served "
                f"{served >> 20} MiB, {doubled >> 20} MiB with {twice.members} members",
                flush=True,
            )


if __name__ == "__main__":
    main()
