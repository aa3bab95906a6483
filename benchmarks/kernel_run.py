"""Runs the fused kernel's launches on torch tensors: compiled on a GPU, or by Triton's interpreter
under TRITON_INTERPRET=1. For benchmarks and tests; the service loads machine code."""

import torch
from torch import Tensor

from bundle.fused import Kernel, Launch, Pointer
from export.fused import kernel as label_kernel
from export.fused.launches import LaunchList

DTYPES = {"float16": torch.float16, "float32": torch.float32, "int32": torch.int32}


def device_buffers(launches: LaunchList, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """All buffers on the features' device: features [N, ...], constants and outputs."""
    some = next(iter(features.values()))
    buffers = {name: x.contiguous() for name, x in features.items()}
    for name, buffer in launches.buffers.items():
        if buffer.kind == "constant":
            buffers[name] = launches.constants[name].to(some.device)
        elif buffer.kind != "features":
            shape = ([len(some)] if buffer.kind == "labels" else []) + list(buffer.extents)
            buffers[name] = torch.empty(shape, dtype=DTYPES[buffer.dtype], device=some.device)
    return buffers


def run_launches(launches: LaunchList, buffers: dict[str, Tensor], samples: int) -> None:
    """Runs all launches for each of `samples` samples in turn."""
    for sample in range(samples):
        for launch in launches.launches:
            _run(launches.kernels[launch.kernel], launch, buffers, sample)


def _run(kernel: Kernel, launch: Launch, buffers: dict[str, Tensor], sample: int) -> None:
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
