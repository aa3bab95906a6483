"""The device seam: the little of CUDA that engines need, as a Protocol a test can stand in for.

Addresses, streams and graphs are plain integers, as TensorRT and ONNX Runtime take them. Copies
are asynchronous and in the order of their stream; a host array may be read, and an uploaded one
changed, after `synchronize` only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

HostBytes = NDArray[np.uint8]
Argument = np.uint64 | np.int32  # of a kernel: an address or a number


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a kernel that the device loaded."""

    kernel: int
    grid: tuple[int, int, int]
    threads: int  # of a block
    shared: int  # bytes of dynamic shared memory
    arguments: Sequence[Argument]


class Device(Protocol):
    """One GPU. Every method may raise DeviceLost or OutOfDeviceMemory."""

    @property
    def name(self) -> str:
        """As the driver says, for example "NVIDIA H200"."""

    @property
    def index(self) -> int:
        """The driver's number of it."""

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, for example (9, 0)."""

    def use(self) -> None:
        """To be called before others on every thread: the runtime's device is a thread's."""

    def allocate(self, size: int) -> int:
        """Address of so many bytes of device memory."""

    def free(self, address: int) -> None:
        """Gives them back."""

    def pinned(self, size: int) -> HostBytes:
        """Page-locked host memory: asynchronous copies need it. Nothing but `unpin` frees it."""

    def unpin(self, memory: HostBytes) -> None:
        """Gives back what `pinned` returned; nobody may read it any more."""

    def stream(self) -> int:
        """A new stream that does not wait for the default one."""

    def end_stream(self, stream: int) -> None:
        """Destroys it."""

    def upload(self, address: int, host: HostBytes, stream: int) -> None:
        """Copies pinned memory to the device."""

    def download(self, host: HostBytes, address: int, stream: int) -> None:
        """Copies from the device to pinned memory."""

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        """Sets so many bytes of the device to one value."""

    def synchronize(self, stream: int) -> None:
        """Waits until the stream is done; faults of its work surface here."""

    def begin_capture(self, stream: int) -> None:
        """What goes to the stream from here on is recorded and not run."""

    def end_capture(self, stream: int) -> int:
        """The recording, as a graph that can be launched."""

    def launch(self, graph: int, stream: int) -> None:
        """Runs a recording."""

    def end_graph(self, graph: int) -> None:
        """Destroys it."""

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        """A kernel of a cubin, allowed so many bytes of dynamic shared memory. Raises
        EngineOpenError when this device cannot run it."""

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        """Puts a kernel on the stream."""

    def unload_kernel(self, kernel: int) -> None:
        """Gives back what `load_kernel` returned; nothing of it may be under way."""
