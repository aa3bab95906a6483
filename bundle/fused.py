"""fused.json of a bundle: the labeller as two graphs with compiled kernels between them.

    ws -> fused.taps.onnx -> picture, features -> kernels -> labels, scores
    picture, labels, scores -> fused.filter.onnx -> outputs of the labeller

Running it needs neither Triton nor torch. The manifest lists these files like all others.
"""

import math
from pathlib import Path
from typing import Literal

import msgspec

from bundle.errors import FileError
from bundle.manifest import Count, Size
from bundle.records import Strict, one_line, problem_from_json

FUSED = "fused.json"
TAPS = "fused.taps.onnx"
FILTER = "fused.filter.onnx"
ARRAYS = "fused.npz"  # content of the constant buffers, by name

BufferKind = Literal["constant", "features", "labels", "scratch"]
PICTURE = "picture"  # the image before its conversion to uint8; a "features" buffer


def binaries_file(capability: str) -> str:
    """File of the kernels for one compute capability, e.g. "9.0": uint8 arrays by kernel name."""
    return f"fused.sm{capability.replace('.', '')}.npz"


class Buffer(Strict, frozen=True):
    """Device memory.

    constant: arrays of fused.npz; features: outputs of fused.taps.onnx; labels: outputs of the
    kernels; scratch: used between kernels.
    """

    kind: BufferKind
    dtype: Literal["float16", "float32", "int32"]
    extents: list[Size]  # shape; for features and labels, of one sample


class Pointer(Strict, frozen=True):
    """A kernel argument: an address in a buffer."""

    buffer: str
    first: Count = 0  # offset of the first sample, bytes
    per_sample: Count = 0  # distance from one sample to the next, bytes; 0: one for all


class Launch(Strict, frozen=True):
    """Launch of one kernel for one sample; integer arguments are int32."""

    kernel: str
    grid: tuple[Size, Size, Size]
    arguments: list[Pointer | int]


class Kernel(Strict, frozen=True):
    """A kernel: the function of export.fused.kernel that was compiled, and its constants."""

    entry: str
    constants: dict[str, int]
    warps: Size
    stages: Size


class Binary(Strict, frozen=True):
    """Launch parameters of a compiled kernel."""

    threads: Size
    shared: Count  # dynamic shared memory, bytes
    hidden: Count  # number of null pointers that the compiler adds after the arguments


class Program(Strict, frozen=True):
    """Kernels and launches that label one sample on GPUs of one compute capability."""

    kernels: dict[str, Kernel]
    binaries: dict[str, Binary]  # by kernel name
    launches: list[Launch]  # in order


class Fused(Strict, frozen=True, kw_only=True):
    """The whole file."""

    format: Literal[1] = 1
    buffers: dict[str, Buffer]
    programs: dict[str, Program]  # by compute capability
    compiler: str  # "triton 3.9.0"


def fused_from_bytes(data: bytes, file: Path) -> Fused:
    """The checked content of fused.json. Raises FileError, naming `file`."""
    try:
        fused = msgspec.json.decode(data, type=Fused)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = one_line(error)
        if isinstance(error, msgspec.ValidationError):
            reason = problem_from_json(error, data, Fused)
        raise FileError(f"{file} describes no fused labeller: {reason}; export again") from error
    for capability, program in fused.programs.items():
        problem = _problem(program, fused.buffers)
        if problem:
            raise FileError(f"{file}: for {capability} it {problem}; export again")
    return fused


def write_fused(folder: Path, fused: Fused) -> None:
    """Writes fused.json in a staged folder."""
    (folder / FUSED).write_bytes(msgspec.json.encode(fused))


def _problem(program: Program, buffers: dict[str, Buffer]) -> str | None:
    if missing := sorted(set(program.kernels) - set(program.binaries)):
        return f"lacks the code of {', '.join(missing)}"
    for launch in program.launches:
        if launch.kernel not in program.kernels:
            return f"launches {launch.kernel!r}, a kernel it lacks"
        for argument in launch.arguments:
            if not isinstance(argument, Pointer):
                continue
            if argument.buffer not in buffers:
                return f"has an argument in {argument.buffer!r}, a buffer it lacks"
            size = _sample_bytes(buffers[argument.buffer])
            if argument.first >= size or argument.per_sample not in (0, size):
                return (
                    f"has an argument at byte {argument.first} of {argument.buffer!r}, and "
                    f"{argument.per_sample} bytes from sample to sample; the buffer has {size}"
                )
    return None


def _sample_bytes(buffer: Buffer) -> int:
    """Size in bytes; for features and labels, of one sample."""
    return math.prod(buffer.extents) * (2 if buffer.dtype == "float16" else 4)
