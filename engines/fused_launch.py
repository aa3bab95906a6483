"""Runs the fused labeller: a plan leaves image and features, kernels label them, a second plan
scores, filters and orders; all on one stream, and one CUDA graph for each batch size."""

import contextlib
from pathlib import Path
from typing import get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bundle.fused import Buffer, BufferKind, Fused, Launch, Pointer
from engines.device import Argument, KernelLaunch
from engines.errors import EngineError, EngineOpenError
from engines.recorded_runs import RecordedRuns
from engines.run_memory import RunMemory, bytes_of
from engines.signature import Arrays, ArraySpec
from engines.tensorrt_launch import PlanContexts
from engines.tensorrt_plan import TensorRTPlan


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


class FusedLauncher:
    """Launcher protocol. Owns buffers, kernels, contexts and graphs; the memory is another's."""

    def __init__(
        self,
        plans: tuple[TensorRTPlan, ...],  # taps and filter
        kernels: KernelSet,
        memory: RunMemory,
        batch_sizes: tuple[int, ...],
        graphs: bool,
    ) -> None:
        """Raises EngineError; nothing stays on the device then."""
        self._name = f"tensorrt-{plans[0].version}-fused"
        self._device, self._stream = memory.device, memory.stream
        self._addresses: dict[str, int] = {}
        self._loaded: dict[str, int] = {}
        self._contexts: list[PlanContexts] = []
        self._runs: RecordedRuns | None = None
        try:
            self._allocate(kernels, memory.rows)
            self._upload(kernels.constants())
            self._load(kernels)
            self._launches = [
                [self._launch(kernels, launch, sample) for launch in kernels.program.launches]
                for sample in range(memory.rows)
            ]
            addresses = memory.addresses | self._addresses
            for plan in plans:
                self._contexts.append(
                    PlanContexts(plan, addresses, batch_sizes, self._device, self._stream)
                )
            self._runs = RecordedRuns(
                self._device, self._stream, self._enqueue, batch_sizes, graphs
            )
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    def launch(self, rows: int) -> None:
        assert self._runs is not None
        self._runs.launch(rows)

    def close(self) -> None:
        if self._runs is not None:
            self._runs.close()
        for contexts in self._contexts:
            contexts.close()
        while self._loaded:
            with contextlib.suppress(EngineError):
                self._device.unload_kernel(self._loaded.popitem()[1])
        while self._addresses:
            with contextlib.suppress(EngineError):
                self._device.free(self._addresses.popitem()[1])

    def _enqueue(self, rows: int) -> None:
        """One sample after another: a band's table is that of one sample."""
        taps, finish = self._contexts
        taps.enqueue(rows)
        for sample in self._launches[:rows]:
            for launch in sample:
                self._device.launch_kernel(launch, self._stream)
        finish.enqueue(rows)

    def _allocate(self, kernels: KernelSet, rows: int) -> None:
        for kind in get_args(BufferKind):
            batched = rows if kind in ("features", "labels") else 1
            for name, spec in kernels.of_kind(kind).items():
                self._addresses[name] = self._device.allocate(bytes_of(spec, batched))

    def _upload(self, constants: dict[str, NDArray[np.generic]]) -> None:
        for name, array in constants.items():
            host = self._device.pinned(array.nbytes)
            try:
                host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                self._device.upload(self._addresses[name], host, self._stream)
                self._device.synchronize(self._stream)
            finally:
                self._device.unpin(host)

    def _load(self, kernels: KernelSet) -> None:
        for name, code in kernels.codes().items():
            entry = kernels.program.kernels[name].entry
            shared = kernels.program.binaries[name].shared
            self._loaded[name] = self._device.load_kernel(code, entry, shared)

    def _launch(self, kernels: KernelSet, launch: Launch, sample: int) -> KernelLaunch:
        binary = kernels.program.binaries[launch.kernel]
        arguments: list[Argument] = [
            np.uint64(self._addresses[a.buffer] + a.first + sample * a.per_sample)
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
