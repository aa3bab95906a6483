"""Weights -> the fused form of the labeller, beside the labeller itself in a staged folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.fused import (
    ARRAYS,
    FILTER,
    PICTURE,
    TAPS,
    Buffer,
    Fused,
    binaries_file,
    write_fused,
)
from export.bundle_from_weights import quiet_exporter
from export.errors import ExportError
from export.fused_branch import fused_branch
from export.fused_graphs import filter_onnx, taps_onnx
from export.half_on_cpu import half_by_float32
from export.kernel_binaries import compiled_kernels, compiler_name
from export.kernel_launches import Tuning
from export.labeller import Labeller, constant_tap, level_channels
from export.weights import Weights


def write_fused_labeller(
    folder: Path, weights: Weights, capabilities: list[str], tuning: Tuning | None = None
) -> None:
    """For GPUs of these compute capabilities. Raises ExportError."""
    if weights.interpreter is None:
        raise ExportError("there is no interpreter; without labels there is nothing to fuse")
    generator, spec = weights.generator, weights.spec
    channels, constant = level_channels(generator, spec.grid), constant_tap(generator)
    try:
        launches, taps = fused_branch(
            weights.interpreter, spec, constant, channels, tuning or Tuning()
        )
    except ValueError as error:
        raise ExportError(str(error)) from error
    picture = Buffer("features", "float32", [3, spec.height, spec.width])
    half = Labeller(
        generator, weights.interpreter, spec, "float16", refine=weights.refiner_stage(torch.float16)
    )
    with quiet_exporter(), half_by_float32():
        taps_onnx(half, taps, folder / TAPS)
        filter_onnx(half, folder / FILTER)
    _write_arrays(folder / ARRAYS, {n: x.numpy() for n, x in launches.constants.items()})
    compiled = compiled_kernels(launches.kernels, capabilities)
    for capability, kernels in compiled.items():
        codes = {name: one.code for name, one in kernels.items()}
        _write_arrays(folder / binaries_file(capability), codes)
    write_fused(
        folder,
        Fused(
            buffers={PICTURE: picture} | launches.buffers,
            kernels=launches.kernels,
            launches=launches.launches,
            binaries={
                capability: {name: one.binary for name, one in kernels.items()}
                for capability, kernels in compiled.items()
            },
            compiler=compiler_name(),
        ),
    )


def _write_arrays(file: Path, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)
