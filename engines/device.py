"""The part of CUDA that engines use, as a Protocol: engines.cuda implements it, tests fake it.

Addresses, streams and graphs are plain integers, as TensorRT and ONNX Runtime take them. Copies
are asynchronous and in the order of their stream: read a downloaded host array, or change an
uploaded one, only after `synchronize`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

HostBytes = NDArray[np.uint8]
Argument = np.uint64 | np.int32  # kernel argument: an address or a number


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a loaded kernel."""

    kernel: int  # as returned by Device.load_kernel
    grid: tuple[int, int, int]  # blocks along x, y, z
    threads: int  # threads per block
    shared: int  # bytes of dynamic shared memory
    arguments: Sequence[Argument]


class Device(Protocol):
    """One GPU. Every method may raise DeviceLost or OutOfDeviceMemory."""

    @property
    def name(self) -> str:
        """The driver's name for it, for example "NVIDIA H200"."""

    @property
    def index(self) -> int:
        """The driver's number for it, from 0."""

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, for example (9, 0)."""

    def use(self) -> None:
        """Selects this device for the calling thread; call it first on every thread, because CUDA
        keeps the current device per thread."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of new device memory."""

    def free(self, address: int) -> None:
        """Frees what `allocate` returned."""

    def pinned(self, size: int) -> HostBytes:
        """Page-locked host memory, uint8 [size], which asynchronous copies need. Only `unpin`
        frees it."""

    def unpin(self, memory: HostBytes) -> None:
        """Frees what `pinned` returned; the array must not be used afterwards."""

    def stream(self) -> int:
        """A new stream that does not wait for the default stream."""

    def end_stream(self, stream: int) -> None:
        """Destroys a stream."""

    def upload(self, address: int, host: HostBytes, stream: int) -> None:
        """Copies all of `host`, which is pinned, to the device."""

    def download(self, host: HostBytes, address: int, stream: int) -> None:
        """Copies from the device until `host`, which is pinned, is full."""

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        """Sets `size` bytes of device memory to one value."""

    def synchronize(self, stream: int) -> None:
        """Waits until all work on the stream is done; errors of that work are raised here."""

    def begin_capture(self, stream: int) -> None:
        """Starts recording: work put on the stream is recorded instead of run."""

    def end_capture(self, stream: int) -> int:
        """Ends recording; returns the recorded CUDA graph, ready to launch."""

    def launch(self, graph: int, stream: int) -> None:
        """Puts one run of a recorded graph on the stream."""

    def end_graph(self, graph: int) -> None:
        """Destroys a recorded graph."""

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        """Loads the function `entry` of a cubin with up to `shared` bytes of dynamic shared
        memory. Raises EngineOpenError when this device cannot run it."""

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        """Puts one kernel launch on the stream."""

    def unload_kernel(self, kernel: int) -> None:
        """Unloads what `load_kernel` returned; it must not be running."""
