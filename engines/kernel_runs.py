"""A bundle's compiled kernels on a device: their buffers, and what is launched for a sample."""

import contextlib
from pathlib import Path
from typing import get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bundle.fused import Buffer, BufferKind, Fused, Launch, Pointer
from engines.device import Argument, Device, KernelLaunch
from engines.errors import EngineError, EngineOpenError
from engines.run_memory import bytes_of
from engines.signature import Arrays, ArraySpec


class KernelSet:
    """The bundle's kernels for one compute capability, and where its arrays lie."""

    def __init__(self, fused: Fused, capability: str, arrays: Path, codes: Path) -> None:
        self.program, self._buffers = fused.programs[capability], fused.buffers
        self._arrays, self._codes = arrays, codes

    def of_kind(self, kind: BufferKind) -> Arrays:
        """Buffers without their batch axis."""
        return {n: _spec(b) for n, b in self._buffers.items() if b.kind == kind}

    def codes(self) -> dict[str, bytes]:
        """Cubins by kernel. Raises EngineOpenError."""
        found = _arrays(self._codes)
        if missing := sorted(set(self.program.kernels) - set(found)):
            raise EngineOpenError(f"{self._codes} lacks {', '.join(missing)}; export again")
        return {name: found[name].tobytes() for name in self.program.kernels}

    def constants(self) -> dict[str, NDArray[np.generic]]:
        """Constant buffers by name. Raises EngineOpenError."""
        found = _arrays(self._arrays)
        for name, spec in self.of_kind("constant").items():
            array = found.get(name)
            if array is None or (array.dtype, array.shape) != (spec.dtype, spec.extents):
                had = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise EngineOpenError(
                    f"{self._arrays} has {had} as {name}; {spec.dtype} {list(spec.extents)} is "
                    "needed, export again"
                )
        return {name: found[name] for name in self.of_kind("constant")}


class KernelRuns:
    """Owns buffers and loaded kernels until `close`. One thread at a time."""

    def __init__(self, kernels: KernelSet, device: Device, stream: int, rows: int) -> None:
        """For up to so many samples. Raises EngineError; nothing stays on the device then."""
        self._device, self._stream = device, stream
        self.addresses: dict[str, int] = {}  # of every buffer
        self._loaded: dict[str, int] = {}
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
        """Labels the first samples, one after another: a band's table is that of one. Raises
        EngineError."""
        for sample in self._launches[:rows]:
            for launch in sample:
                self._device.launch_kernel(launch, self._stream)

    def close(self) -> None:
        """Idempotent. A lost device frees nothing."""
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


def _arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, BadZipFile) as error:
        raise EngineOpenError(f"{file} cannot be read ({error}); export again") from error
