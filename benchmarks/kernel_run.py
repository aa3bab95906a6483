"""Runs the launches of the fused kernels on torch tensors, for benchmarks and tests.

`triton.jit` compiles the kernels for the GPU, or interprets them if TRITON_INTERPRET is 1. The
service does neither: it loads machine code from the bundle.
"""

import torch
from torch import Tensor

from bundle.fused import Kernel, Launch, Pointer
from export.fused import kernel as label_kernel
from export.fused.launches import LaunchList

DTYPES = {"float16": torch.float16, "float32": torch.float32, "int32": torch.int32}


def device_buffers(launches: LaunchList, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """All buffers by name, on the device of `features`.

    features: buffers of kind "features" by name, [N, ...] each. Constants are copied; labels
    [N, ...] and scratch are allocated, uninitialized.
    """
    feature = next(iter(features.values()))
    buffers = {name: x.contiguous() for name, x in features.items()}
    for name, buffer in launches.buffers.items():
        if buffer.kind == "constant":
            buffers[name] = launches.constants[name].to(feature.device)
        elif buffer.kind != "features":
            shape = ([len(feature)] if buffer.kind == "labels" else []) + list(buffer.extents)
            buffers[name] = torch.empty(shape, dtype=DTYPES[buffer.dtype], device=feature.device)
    return buffers


def run_launches(launches: LaunchList, buffers: dict[str, Tensor], samples: int) -> None:
    """Labels the first `samples` samples of the buffers, one after another."""
    for sample in range(samples):
        for launch in launches.launches:
            _run(launches.kernels[launch.kernel], launch, buffers, sample)


def _run(kernel: Kernel, launch: Launch, buffers: dict[str, Tensor], sample: int) -> None:
    """Runs one launch; a Pointer becomes the flat buffer from its first element on."""
    arguments: list[Tensor | int] = []
    for argument in launch.arguments:
        if isinstance(argument, Pointer):
            flat = buffers[argument.buffer].view(-1)
            first = argument.first + sample * argument.per_sample
            arguments.append(flat[first // flat.element_size() :])
        else:
            arguments.append(argument)
    function = getattr(label_kernel, kernel.entry)
    function[launch.grid](
        *arguments, **kernel.constants, num_warps=kernel.warps, num_stages=kernel.stages
    )
