"""Kernels -> machine code for GPUs that need not be here, by Triton's own compiler and ptxas."""

import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.fused import Binary, Kernel
from export.errors import ExportError

CAPABILITY = re.compile(r"\d+\.\d\Z")
LEAST = (8, 0)  # tensor cores that take float16 as the kernels use it
# KiB of shared memory that a block may have (CUDA C++ Programming Guide, technical
# specifications per compute capability); 99 where it is not known.
SHARED_KIB = {"8.0": 163, "8.7": 163, "9.0": 227, "10.0": 227, "10.3": 227, "11.0": 227}
# By the suffix of names in export.fused.kernel's signatures.
POINTERS = {
    "features": "*fp16", "weights": "*fp16", "table": "*fp16", "nodes": "*fp16", "finest": "*fp16",
    "reads": "*i32", "interpolation": "*fp16", "weight1": "*fp16", "weight2": "*fp16",
    "bias2": "*fp32", "weight3": "*fp16", "bias3": "*fp32", "labels": "*fp32", "scores": "*fp32",
}  # fmt: skip


@dataclass(frozen=True)
class Compiled:
    """Of one kernel for one compute capability."""

    code: NDArray[np.uint8]  # a cubin
    binary: Binary


def compiler_name() -> str:
    """The compiler and its version."""
    return f"triton {version('triton')}"


def check_capability(capability: str) -> None:
    """Raises ExportError unless Triton can be imported and this is a GPU that it compiles for."""
    if not CAPABILITY.match(capability) or tuple(map(int, capability.split("."))) < LEAST:
        raise ExportError(
            f"compute capability is {capability!r}; the fused kernel needs one from 8.0, such as "
            "8.0 (A100), 8.9 (L4) or 9.0 (H100)"
        )
    if find_spec("triton") is None:
        raise ExportError(
            "the fused kernel is compiled by Triton, which is not installed; install the extra "
            "`fused`"
        )


def compiled_kernels(kernels: dict[str, Kernel], capability: str) -> dict[str, Compiled] | None:
    """For GPUs of one compute capability; None when a kernel needs more shared memory than they
    have. Raises ExportError."""
    compiled = {}
    # The kernels with the members come last, and are those that may be too large.
    for name, kernel in reversed(kernels.items()):
        try:
            compiled[name] = _compiled(kernel, capability)
        except Exception as error:  # of Triton, LLVM or ptxas, which have no common one
            reason = " ".join(str(error).split())[:300]
            raise ExportError(f"{name} cannot be compiled for {capability}: {reason}") from error
        if compiled[name].binary.shared > SHARED_KIB.get(capability, 99) << 10:
            return None
    return compiled


def _compiled(kernel: Kernel, capability: str) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from export.fused import kernel as label_kernel

    function: Any = getattr(label_kernel, kernel.entry)
    names: list[str] = function.arg_names
    signature = {name: POINTERS.get(name, "i32") for name in names}
    signature |= dict.fromkeys(kernel.constants, "constexpr")
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in kernel.constants.items()},
        # Every buffer, and every offset in one, is a multiple of 16 bytes.
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if signature[name].startswith("*")
        },
    )
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages, "enable_fp_fusion": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that later versions change
        made: Any = triton.compile(
            source, target=GPUTarget("cuda", int(capability.replace(".", "")), 32), options=options
        )
    scratch = [getattr(made.metadata, f"{kind}_scratch_size", 0) for kind in ("global", "profile")]
    if any(scratch):
        raise ExportError(f"it needs scratch memory of {scratch} bytes, which nothing allocates")
    parameters = re.search(r"\.entry\s+\w+\s*\((.*?)\)", made.asm["ptx"], re.DOTALL)
    assert parameters is not None
    visible = sum(kind != "constexpr" for kind in signature.values())
    return Compiled(
        np.frombuffer(made.asm["cubin"], np.uint8),
        Binary(
            threads=kernel.warps * 32,
            shared=made.metadata.shared,
            hidden=parameters[1].count(".param") - visible,
        ),
    )
