"""The fused form of a bundle's labeller: two graphs with kernels between them, as data.

`fused.taps.onnx` takes ws and leaves picture and features in buffers, the kernels label them, and
`fused.filter.onnx` takes picture, labels and scores to the labeller's own outputs. What lies here
needs neither Triton nor torch to run. The files are listed in the manifest like all others.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bundle.errors import FileError
from bundle.manifest import Strict

FUSED = "fused.json"
TAPS = "fused.taps.onnx"
FILTER = "fused.filter.onnx"
ARRAYS = "fused.npz"  # constant buffers, by name

Count = Annotated[int, msgspec.Meta(ge=0)]
Extent = Annotated[int, msgspec.Meta(ge=1)]
BufferKind = Literal["constant", "features", "labels", "scratch"]
PICTURE = "picture"  # features that the filter reads as well: the image before it is bytes


def binaries_file(capability: str) -> str:
    """Compiled kernels for one compute capability, such as "9.0": uint8 arrays by kernel."""
    return f"fused.sm{capability.replace('.', '')}.npz"


class Buffer(Strict, frozen=True):
    """Device memory: constants; what the taps' graph leaves; what the kernels leave; scratch."""

    kind: BufferKind
    dtype: Literal["float16", "float32", "int32"]
    extents: list[Extent]  # features and labels: of one sample


class Pointer(Strict, frozen=True):
    """An argument: an address within a buffer."""

    buffer: str
    first: Count = 0  # bytes
    per_sample: Count = 0  # bytes from one sample to the next


class Launch(Strict, frozen=True):
    """One kernel for one sample; integers are int32 arguments."""

    kernel: str
    grid: tuple[Extent, Extent, Extent]
    arguments: list[Pointer | int]


class Kernel(Strict, frozen=True):
    """What was compiled: a function of export.fused.kernel and its constants."""

    entry: str
    constants: dict[str, int]
    warps: Extent
    stages: Extent


class Binary(Strict, frozen=True):
    """How a compiled kernel is to be launched."""

    threads: Extent
    shared: Count  # bytes of dynamic shared memory
    hidden: Count  # null pointers behind the arguments, the compiler's own


class Program(Strict, frozen=True):
    """What labels one sample on GPUs of one compute capability."""

    kernels: dict[str, Kernel]
    binaries: dict[str, Binary]  # by kernel
    launches: list[Launch]  # in order


class Fused(Strict, frozen=True, kw_only=True):
    """The whole file."""

    format: Literal[1] = 1
    buffers: dict[str, Buffer]
    programs: dict[str, Program]  # by compute capability
    compiler: str  # "triton 3.9.0"


def fused_from_folder(folder: Path) -> Fused:
    """The checked content of fused.json. Raises FileError."""
    file = folder / FUSED
    try:
        fused = msgspec.json.decode(file.read_bytes(), type=Fused)
    except OSError as error:
        raise FileError(f"{file} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{file} describes no fused labeller: {reason}; export again") from error
    for capability, program in fused.programs.items():
        problem = _problem(program, fused.buffers)
        if problem:
            raise FileError(f"{file}: for {capability} it {problem}; export again")
    return fused


def write_fused(folder: Path, fused: Fused) -> None:
    """Puts fused.json into a staged folder."""
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
            size = _bytes_of(buffers[argument.buffer])
            if argument.first >= size or argument.per_sample not in (0, size):
                return (
                    f"has an argument at byte {argument.first} of {argument.buffer!r}, and "
                    f"{argument.per_sample} from sample to sample; it has {size}"
                )
    return None


def _bytes_of(buffer: Buffer) -> int:
    """Of one sample, where there is one for every sample."""
    return math.prod(buffer.extents) * (2 if buffer.dtype == "float16" else 4)
