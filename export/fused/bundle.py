"""Weights -> the fused form of the labeller, beside the labeller itself in a staged folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from export.fused.compile import Compiled, compiled_kernels, compiler_name
from export.fused.graphs import KernelTaps, filter_onnx, fused_branch, taps_onnx
from export.fused.launches import LaunchList, Tuning
from export.fused.tiles import LEAST_GRID
from export.graph.labeller import Labeller, constant_tap, level_channels
from export.graph.to_onnx import half_by_float32
from export.weights import SourceWeights

# From the fastest by counting down to what fits the least shared memory. None was measured yet.
TUNINGS = (
    Tuning(),
    Tuning(chunk=32),
    Tuning(squares=(1, 1), warps=4),
    Tuning(squares=(1, 1), warps=4, chunk=32),
    Tuning(squares=(1, 1), warps=4, chunk=16, stages=1),
)
Compile = Callable[[dict[str, Kernel], str], dict[str, Compiled] | None]


def check_fusable(weights: SourceWeights) -> None:
    """Before anything slow. Raises ExportError."""
    if weights.interpreter is None:
        raise ExportError("there is no interpreter; without labels there is nothing to fuse")
    if weights.spec.grid < LEAST_GRID:
        raise ExportError(
            f"the label grid is {weights.spec.grid} px; the fused kernel needs at least "
            f"{LEAST_GRID}, leave out --fused"
        )


def write_fused_labeller(
    folder: Path,
    weights: SourceWeights,
    capabilities: list[str],
    tunings: tuple[Tuning, ...] = TUNINGS,
    compiler: Compile = compiled_kernels,
) -> None:
    """For GPUs of these compute capabilities. Raises ExportError."""
    check_fusable(weights)
    generator, spec = weights.generator, weights.spec
    half = Labeller(
        generator, weights.interpreter, spec, "float16", refine=weights.refiner_stage(torch.float16)
    )
    picture = Buffer("features", "float32", [3, spec.height, spec.width])
    buffers, constants, programs = {PICTURE: picture}, dict[str, Tensor](), dict[str, Program]()
    for capability in tqdm(capabilities, desc="compile", unit="GPU"):
        launches, graph, compiled = _fitting(weights, capability, tunings, compiler)
        table = launches.buffers["table"]
        if "table" in buffers:
            both = zip(table.extents, buffers["table"].extents, strict=True)
            table = replace(table, extents=list(map(max, both)))
        buffers |= launches.buffers | {"table": table}
        constants |= launches.constants
        codes = {name: one.code for name, one in compiled.items()}
        _write_arrays(folder / binaries_file(capability), codes)
        binaries = {name: one.binary for name, one in compiled.items()}
        programs[capability] = Program(launches.kernels, binaries, launches.launches)
    with quiet_exporter(), half_by_float32():
        taps_onnx(half, graph, folder / TAPS)
        filter_onnx(half, folder / FILTER)
    _write_arrays(folder / ARRAYS, {n: x.numpy() for n, x in constants.items()})
    write_fused(folder, Fused(buffers=buffers, programs=programs, compiler=compiler_name()))


def _fitting(
    weights: SourceWeights, capability: str, tunings: tuple[Tuning, ...], compiler: Compile
) -> tuple[LaunchList, KernelTaps, dict[str, Compiled]]:
    """The first shape that GPUs of this capability have room for."""
    generator, spec = weights.generator, weights.spec
    assert weights.interpreter is not None
    channels, constant = level_channels(generator, spec.grid), constant_tap(generator)
    for tuning in tunings:
        launches, graph = fused_branch(weights.interpreter, spec, constant, channels, tuning)
        compiled = compiler(launches.kernels, capability)
        if compiled is not None:
            return launches, graph, compiled
    raise ExportError(
        f"GPUs of compute capability {capability} have too little shared memory for this "
        "ensemble's hidden layers; leave it out of --fused"
    )


def _write_arrays(file: Path, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)
