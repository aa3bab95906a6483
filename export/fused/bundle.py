"""Weights -> the fused labeller: files of graphs, kernels and constants in a staged folder.

The files are those that bundle.fused describes, beside the labeller's own graphs.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor
from tqdm import tqdm

from bundle.fused import (
    ARRAYS,
    FILTER,
    PICTURE,
    TAPS,
    Buffer,
    Fused,
    Kernel,
    Program,
    binaries_file,
    write_fused,
)
from export.bundle_from_weights import quiet_exporter
from export.errors import ExportError
from export.fused.compile import CompiledKernel, compiled_kernels, compiler_name
from export.fused.graphs import filter_onnx, fused_branch, taps_onnx
from export.fused.launches import LaunchList, Tuning
from export.fused.tiles import MIN_GRID
from export.graph.labeller import Labeller, constant_tap, level_channels
from export.graph.to_onnx import half_by_float32
from export.weights import SourceWeights
from nets.config import SQUARE

# In the order of benchmarks.fused_counts' estimates, none of them measured. A GPU gets the first
# that fits its shared memory, spills no register and has no serialized products.
TUNINGS = (
    Tuning(squares=(1, 1), band_tiles=256, chunk=32, warps=4, stages=3),
    Tuning(chunk=32, stages=3),  # for hidden layers so wide that the first one spills
    Tuning(squares=(1, 1), band_tiles=256, chunk=32, warps=4),
    Tuning(squares=(1, 1), band_tiles=256, chunk=16, warps=4, stages=1),
)
T = TypeVar("T")
Compiler = Callable[[dict[str, Kernel], str], dict[str, CompiledKernel] | None]


def check_fusable(weights: SourceWeights) -> None:
    """Raises ExportError for weights that cannot be fused. Fast, so that an export fails early."""
    if weights.interpreter is None:
        raise ExportError(
            "there is no interpreter, so there is no label branch to fuse; leave out --fused"
        )
    if weights.generator.config.family == "stylegan3":
        raise ExportError(
            "the generator is a StyleGAN3, which the fused kernel does not read: it adds its "
            "constants to feature maps of 4 px; leave out --fused"
        )
    if weights.spec.start != SQUARE:
        height, width = weights.generator.config.image_size
        raise ExportError(
            f"the generator's images are {width}x{height} pixels; the fused kernel labels square "
            "ones only, leave out --fused"
        )
    if weights.spec.grid < MIN_GRID:
        raise ExportError(
            f"the label grid is {weights.spec.grid} px; the fused kernel needs at least "
            f"{MIN_GRID}, leave out --fused"
        )


def write_fused_labeller(
    folder: Path,
    weights: SourceWeights,
    capabilities: list[str],
    tunings: tuple[Tuning, ...] = TUNINGS,
    compiler: Compiler = compiled_kernels,
) -> None:
    """Writes the fused labeller for GPUs of these compute capabilities, such as "8.9".

    tunings: tried in this order for each capability. compiler: tests substitute another one.
    Raises ExportError.
    """
    check_fusable(weights)
    generator, interpreter, spec = weights.generator, weights.interpreter, weights.spec
    assert interpreter is not None
    labeller = Labeller(
        generator, interpreter, spec, "float16", refine=weights.refiner_stage(torch.float16)
    )
    image = Buffer("features", "float32", [3, spec.height, spec.width])
    channels, constant = level_channels(generator, spec.grid), constant_tap(generator)
    buffers, constants, programs = {PICTURE: image}, dict[str, Tensor](), dict[str, Program]()
    for capability in tqdm(capabilities, desc="compile", unit="GPU"):
        options = (
            fused_branch(interpreter, spec, constant, channels, tuning) for tuning in tunings
        )
        launches, graph, compiled = first_fitting(options, capability, compiler)
        table = launches.buffers["table"]
        if "table" in buffers:
            # One buffer serves the programs of all capabilities, so it has the larger extents.
            both = zip(table.extents, buffers["table"].extents, strict=True)
            table = replace(table, extents=list(map(max, both)))
        buffers |= launches.buffers | {"table": table}
        constants |= launches.constants
        codes = {name: kernel.code for name, kernel in compiled.items()}
        _write_arrays(folder / binaries_file(capability), codes)
        binaries = {name: kernel.binary for name, kernel in compiled.items()}
        programs[capability] = Program(launches.kernels, binaries, launches.launches)
    with quiet_exporter(), half_by_float32():
        taps_onnx(labeller, graph, folder / TAPS)
        filter_onnx(labeller, folder / FILTER)
    _write_arrays(folder / ARRAYS, {n: x.numpy() for n, x in constants.items()})
    write_fused(folder, Fused(buffers=buffers, programs=programs, compiler=compiler_name()))


def first_fitting(
    options: Iterable[tuple[LaunchList, T]], capability: str, compiler: Compiler
) -> tuple[LaunchList, T, dict[str, CompiledKernel]]:
    """The first option whose kernels fit GPUs of this capability, and its compiled kernels.

    Kernels fit if they need no more shared memory than there is, none of their products is
    serialized, and they spill no register. If all of the others spill, the one that spills least is
    taken. Raises ExportError if there is none.
    """
    spilling, least, serialized = None, 0, ""
    for launches, graph in options:
        compiled = compiler(launches.kernels, capability)
        if compiled is None:
            continue
        waiting = [
            f"{n} ({k.report.serialized})" for n, k in compiled.items() if k.report.serialized
        ]
        if waiting:
            serialized = waiting[0]
            continue
        spilled_bytes = sum(kernel.report.spilled_bytes for kernel in compiled.values())
        if spilled_bytes == 0:
            return launches, graph, compiled
        if spilling is None or spilled_bytes < least:
            spilling, least = (launches, graph, compiled), spilled_bytes
    if spilling is None and serialized:
        raise ExportError(
            f"ptxas adds waits to the matrix products of {serialized}, with every shape of tiles "
            f"for compute capability {capability}; leave it out of --fused"
        )
    if spilling is None:
        raise ExportError(
            f"GPUs of compute capability {capability} have too little shared memory for this "
            "ensemble's hidden layers; leave it out of --fused"
        )
    spilled = ", ".join(
        f"{name} {kernel.report.spilled_bytes}"
        for name, kernel in spilling[2].items()
        if kernel.report.spilled_bytes
    )
    tqdm.write(
        f"the fused kernels for {capability} spill registers, which makes them slower; bytes per "
        f"thread: {spilled}",
        file=sys.stderr,
    )
    return spilling


def _write_arrays(file: Path, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)
