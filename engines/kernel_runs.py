"""A bundle's compiled kernels on a device: their code, buffers and launches for each sample."""

import contextlib
import zlib
from io import BytesIO
from pathlib import Path
from typing import get_args
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from bundle.fused import (
    ARRAYS,
    Buffer,
    BufferKind,
    Fused,
    Launch,
    Pointer,
    binaries_file,
)
from bundle.open import Bundle
from engines.device import Argument, Device, KernelLaunch
from engines.errors import EngineError, EngineOpenError
from engines.run_memory import bytes_of
from engines.signature import ArraySpec, ArraySpecs

MAX_ARRAY_BYTES = 2 << 30  # of a file of arrays, which may be compressed; real ones have megabytes


class KernelSet:
    """The bundle's kernels for one compute capability, and the files with their arrays."""

    def __init__(self, bundle: Bundle, fused: Fused, capability: str) -> None:
        """Raises FileError if the bundle lacks one of the files."""
        self.program, self._buffers = fused.programs[capability], fused.buffers
        self._bundle = bundle
        self._arrays, self._codes = bundle.file(ARRAYS), bundle.file(binaries_file(capability))

    def of_kind(self, kind: BufferKind) -> ArraySpecs:
        """Specs of the buffers of one kind, by name."""
        return {n: _spec(b) for n, b in self._buffers.items() if b.kind == kind}

    def codes(self) -> dict[str, bytes]:
        """Cubins by kernel name. Raises EngineOpenError, FileError."""
        found = self._stored(self._codes)
        if missing := sorted(set(self.program.kernels) - set(found)):
            raise EngineOpenError(
                f"{self._codes} lacks {', '.join(missing)}; export the bundle again"
            )
        return {name: found[name].tobytes() for name in self.program.kernels}

    def constants(self) -> dict[str, NDArray[np.generic]]:
        """Constant buffers by name. Raises EngineOpenError, FileError."""
        found = self._stored(self._arrays)
        for name, spec in self.of_kind("constant").items():
            array = found.get(name)
            if array is None or (array.dtype, array.shape) != (spec.dtype, spec.extents):
                actual = "missing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise EngineOpenError(
                    f"{self._arrays}: {name} is {actual}; it must be {spec.dtype} "
                    f"{list(spec.extents)}, export the bundle again"
                )
        return {name: found[name] for name in self.of_kind("constant")}

    def _stored(self, file: Path) -> dict[str, NDArray[np.generic]]:
        content = BytesIO(self._bundle.read(file.name))
        try:
            with ZipFile(content) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_ARRAY_BYTES:
                raise ValueError(f"its arrays have {size} bytes, over {MAX_ARRAY_BYTES}")
            with np.load(content, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
            raise EngineOpenError(
                f"{file} cannot be read ({error}); export the bundle again"
            ) from error


class KernelRuns:
    """Owns buffers and loaded kernels until `close`. One thread at a time."""

    def __init__(self, kernels: KernelSet, device: Device, stream: int, rows: int) -> None:
        """Prepares runs of up to `rows` samples. Raises EngineError; nothing stays on the device
        then."""
        self._device, self._stream = device, stream
        self.addresses: dict[str, int] = {}  # device address of every buffer, by name
        self._loaded: dict[str, int] = {}  # loaded kernels by name
        try:
            for kind in get_args(BufferKind):
                batched = rows if kind in ("features", "labels") else 1
                for name, spec in kernels.of_kind(kind).items():
                    self.addresses[name] = device.allocate(bytes_of(spec, batched))
            self._upload(kernels.constants())
            for name, code in kernels.codes().items():
                entry = kernels.program.kernels[name].entry
                shared = kernels.program.binaries[name].shared
                self._loaded[name] = device.load_kernel(code, entry, shared)
        except BaseException:
            self.close()
            raise
        self._launches = [
            [self._launch(kernels, launch, sample) for launch in kernels.program.launches]
            for sample in range(rows)
        ]

    def enqueue(self, rows: int) -> None:
        """Puts the kernels for the first `rows` samples on the stream, one sample after another,
        because the table of a band of rows holds one sample. Raises EngineError."""
        for sample in self._launches[:rows]:
            for launch in sample:
                self._device.launch_kernel(launch, self._stream)

    def close(self) -> None:
        """Unloads the kernels and frees the buffers, except on a lost device; idempotent."""
        while self._loaded:
            with contextlib.suppress(EngineError):
                self._device.unload_kernel(self._loaded.popitem()[1])
        while self.addresses:
            with contextlib.suppress(EngineError):
                self._device.free(self.addresses.popitem()[1])

    def _upload(self, constants: dict[str, NDArray[np.generic]]) -> None:
        for name, array in constants.items():
            host = self._device.pinned(array.nbytes)
            try:
                host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                self._device.upload(self.addresses[name], host, self._stream)
                self._device.synchronize(self._stream)
            finally:
                self._device.unpin(host)

    def _launch(self, kernels: KernelSet, launch: Launch, sample: int) -> KernelLaunch:
        binary = kernels.program.binaries[launch.kernel]
        arguments: list[Argument] = [
            np.uint64(self.addresses[a.buffer] + a.first + sample * a.per_sample)
            if isinstance(a, Pointer)
            else np.int32(a)
            for a in launch.arguments
        ]
        arguments += [np.uint64(0)] * binary.hidden
        return KernelLaunch(
            self._loaded[launch.kernel], launch.grid, binary.threads, binary.shared, arguments
        )


def _spec(buffer: Buffer) -> ArraySpec:
    return ArraySpec(np.dtype(buffer.dtype), tuple(buffer.extents))
