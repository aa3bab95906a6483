"""Kernels -> machine code for GPUs, by Triton's compiler and ptxas. No GPU is needed to compile."""

import re
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.fused import Binary, Kernel
from export.errors import ExportError

CAPABILITY = re.compile(r"\d+\.\d\Z")
MIN_CAPABILITY = (8, 0)  # the first with the float16 tensor cores that the kernels use
# Largest shared memory of a block, KiB (CUDA C++ Programming Guide, technical specifications per
# compute capability). 99 is assumed for capabilities that are not in the table.
SHARED_KIB = {"8.0": 163, "8.7": 163, "9.0": 227, "10.0": 227, "10.3": 227, "11.0": 227}
# Types of the pointer arguments in export.fused.kernel, by name; all others are i32.
POINTERS = {
    "features": "*fp16", "weights": "*fp16", "table": "*fp16", "nodes": "*fp16", "finest": "*fp16",
    "reads": "*i32", "interpolation": "*fp16", "weight1": "*fp16", "weight2": "*fp16",
    "bias2": "*fp32", "weight3": "*fp16", "bias3": "*fp32", "labels": "*fp32", "scores": "*fp32",
}  # fmt: skip


# ptxas's warnings (C7510 to C7519) that it adds waits to warpgroup products. The result is right,
# but the tensor cores idle meanwhile.
SERIALIZED = re.compile(r"\(?(C75\d\d)\)?:?\s*(.*)")


@dataclass(frozen=True)
class PtxasReport:
    """What ptxas reports of one kernel, per thread."""

    registers: int
    spilled_bytes: int  # stores and loads of values that found no register
    serialized: str = ""  # the warning that products are serialized, or ""


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel for one compute capability."""

    code: NDArray[np.uint8]  # a cubin
    binary: Binary  # how to launch it
    report: PtxasReport


def compiler_name() -> str:
    """Name and version of the compiler, as fused.json records them."""
    return f"triton {version('triton')}"


def check_capability(capability: str) -> None:
    """Raises ExportError if `capability` is not at least "8.0", or Triton is not installed."""
    if not CAPABILITY.match(capability) or tuple(map(int, capability.split("."))) < MIN_CAPABILITY:
        raise ExportError(
            f"compute capability is {capability!r}; the fused kernel needs one from 8.0, such as "
            "8.0 (A100), 8.9 (L4) or 9.0 (H100)"
        )
    if find_spec("triton") is None:
        raise ExportError(
            "the fused kernel is compiled by Triton, which is not installed; install the extra "
            "`fused`"
        )


def compiled_kernels(
    kernels: dict[str, Kernel], capability: str
) -> dict[str, CompiledKernel] | None:
    """Compiles all kernels for GPUs of one compute capability.

    None if a kernel needs more shared memory than those GPUs have. Raises ExportError.
    """
    compiled = {}
    # label_pixels comes last in `kernels`, and is the one that may need too much shared memory.
    for name, kernel in reversed(kernels.items()):
        try:
            compiled[name] = _compiled(kernel, capability)
        except Exception as error:  # Triton, LLVM and ptxas have no common base class
            reason = " ".join(str(error).split())[:300]
            raise ExportError(f"{name} cannot be compiled for {capability}: {reason}") from error
        if compiled[name].binary.shared > SHARED_KIB.get(capability, 99) << 10:
            return None
    return compiled


def _compiled(kernel: Kernel, capability: str) -> CompiledKernel:
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
        # Addresses of buffers, and offsets within them, are multiples of 16 bytes.
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if signature[name].startswith("*")
        },
    )
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages, "enable_fp_fusion": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton warns of defaults that will change
        output: Any = triton.compile(
            source, target=GPUTarget("cuda", int(capability.replace(".", "")), 32), options=options
        )
    scratch = [
        getattr(output.metadata, f"{kind}_scratch_size", 0) for kind in ("global", "profile")
    ]
    if any(scratch):
        raise ExportError(f"it needs {scratch} bytes of scratch memory; the engine allocates none")
    code, report = cubin_from_ptx(output.asm["ptx"])
    parameters = re.search(r"\.entry\s+\w+\s*\((.*?)\)", output.asm["ptx"], re.DOTALL)
    assert parameters is not None
    visible = sum(kind != "constexpr" for kind in signature.values())
    return CompiledKernel(
        np.frombuffer(code, np.uint8),
        Binary(
            threads=kernel.warps * 32,
            shared=output.metadata.shared,
            hidden=parameters[1].count(".param") - visible,
        ),
        report,
    )


def cubin_from_ptx(ptx: str) -> tuple[bytes, PtxasReport]:
    """Machine code of one kernel, and ptxas's report of it. Raises ExportError.

    Triton has run the same ptxas with the same options, but deletes its report.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"^\s*\.target\s+(sm_(\d+)\w*)", ptx, re.MULTILINE)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        done = subprocess.run(
            [
                *(get_ptxas(int(target[2])).path, "-v", "-lineinfo", "--regAllocOptLevel=2"),
                *(f"--gpu-name={target[1]}", str(source), "-o", str(result)),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ExportError(f"ptxas ends with {done.returncode}: {done.stderr}")
        return result.read_bytes(), report_from_log(done.stderr)


def report_from_log(log: str) -> PtxasReport:
    """The report of `ptxas -v` on one kernel. Raises ExportError if it has no such report."""
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if registers is None or spills is None:
        raise ExportError(f"ptxas reports no registers or no spills: {log}")
    warning = SERIALIZED.search(log)
    serialized = f"{warning[1]}: {warning[2]}" if warning else ""
    return PtxasReport(int(registers[1]), int(spills[1]) + int(spills[2]), serialized)
