"""Memory of one engine, allocated once: the graph's inputs and outputs at the largest batch size,
on the device and in pinned host memory, and the stream that copies between them."""

import contextlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.device import Device, HostBytes
from engines.errors import EngineError
from engines.signature import ArraySpec, graph_inputs, graph_outputs

UNWRITTEN_BYTE = 0xFF  # value of every byte of an invalidated output


class RunMemory:
    """Owns the memory until `close`. One thread at a time."""

    def __init__(self, device: Device, manifest: Manifest, rows: int) -> None:
        """Allocates memory for runs of up to `rows` rows. Raises OutOfDeviceMemory, DeviceLost."""
        self.device, self.rows = device, rows
        self.inputs, self.outputs = graph_inputs(manifest), graph_outputs(manifest)
        self.addresses: dict[str, int] = {}
        self._pinned: dict[str, HostBytes] = {}
        self.stream = device.stream()
        try:
            for name, spec in (self.inputs | self.outputs).items():
                size = bytes_of(spec, rows)
                self.addresses[name] = device.allocate(size)
                self._pinned[name] = device.pinned(size)
                # Warm-up runs read the inputs before anything is uploaded.
                device.fill(self.addresses[name], 0, size, self.stream)
            device.synchronize(self.stream)
        except BaseException:
            self.close()
            raise

    def upload(self, feed: dict[str, NDArray[np.float32]]) -> None:
        """Starts copying the inputs to the device. Earlier runs must have ended."""
        for name, array in feed.items():
            host = self._pinned[name][: array.nbytes]
            host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.device.upload(self.addresses[name], host, self.stream)

    def invalidate(self, name: str) -> None:
        """Fills an output with 0xFF bytes, so that a run which does not write it is noticed."""
        size = bytes_of(self.outputs[name], self.rows)
        self.device.fill(self.addresses[name], UNWRITTEN_BYTE, size, self.stream)

    def download(self, names: Sequence[str], rows: int) -> dict[str, NDArray[np.generic]]:
        """Waits for the stream and returns the first `rows` rows of these outputs.

        The arrays are views that stay valid until the next call.
        """
        hosts = {name: self._pinned[name][: bytes_of(self.outputs[name], rows)] for name in names}
        for name, host in hosts.items():
            if host.nbytes:
                self.device.download(host, self.addresses[name], self.stream)
        self.device.synchronize(self.stream)
        return {name: _shaped(host, self.outputs[name], rows) for name, host in hosts.items()}

    def close(self) -> None:
        """Waits for the stream and frees everything; idempotent. On a lost device nothing can be
        freed; the process must end anyway."""
        if self.stream:
            with contextlib.suppress(EngineError):
                self.device.synchronize(self.stream)
        while self._pinned:
            with contextlib.suppress(EngineError):
                self.device.unpin(self._pinned.popitem()[1])
        while self.addresses:
            with contextlib.suppress(EngineError):
                self.device.free(self.addresses.popitem()[1])
        if self.stream:
            stream, self.stream = self.stream, 0
            with contextlib.suppress(EngineError):
                self.device.end_stream(stream)


def bytes_of(spec: ArraySpec, rows: int) -> int:
    """Bytes of an array of this spec with `rows` rows."""
    count = int(np.prod(spec.extents, dtype=np.int64))
    return spec.dtype.itemsize * count * (rows if spec.batched else 1)


def _shaped(host: HostBytes, spec: ArraySpec, rows: int) -> NDArray[np.generic]:
    shape = (rows, *spec.extents) if spec.batched else spec.extents
    return host.view(spec.dtype).reshape(shape)
