"""The device seam by cuda-python, which every method here calls by its runtime API's own name."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np

from engines.cuda_kernel import CudaKernels
from engines.device import HostBytes, KernelLaunch
from engines.errors import (
    DeviceLost,
    EngineError,
    EngineRunError,
    OutOfDeviceMemory,
    RuntimeMissing,
)

MISSING = "install the extra `gpu` on a machine with an NVIDIA GPU and driver"


def open_device(index: int = 0) -> "CudaDevice":
    """GPU `index` of this machine. Raises RuntimeMissing."""
    runtime = _runtime()
    try:
        error, count = runtime.cudaGetDeviceCount()
    except RuntimeError as cause:  # cuda-python 12 without the driver's library
        raise RuntimeMissing(f"there is no NVIDIA driver here ({cause}); {MISSING}") from cause
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise RuntimeMissing(f"there is no NVIDIA GPU here ({_name(error)}); {MISSING}")
    if not 0 <= index < count:
        raise RuntimeMissing(f"GPU {index} is asked for; this machine has 0 to {count - 1}")
    return CudaDevice(runtime, index)


class CudaDevice:
    """Device protocol over the CUDA runtime API."""

    def __init__(self, runtime: Any, index: int) -> None:
        """`runtime` is cuda.bindings.runtime, or cuda.cudart before cuda-python 12.6."""
        self._cuda, self._index = runtime, index
        self.use()
        properties = self._do("cudaGetDeviceProperties", index)
        self._device_name: str = properties.name.decode().rstrip("\0")
        self._capability = (int(properties.major), int(properties.minor))
        self._graphs: dict[int, Any] = {}  # handles that must live as long as they are used
        self._kernels = CudaKernels(index)

    @property
    def name(self) -> str:
        return self._device_name

    @property
    def index(self) -> int:
        return self._index

    @property
    def capability(self) -> tuple[int, int]:
        return self._capability

    def use(self) -> None:
        self._do("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        return int(self._do("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._do("cudaFree", address)

    def pinned(self, size: int) -> HostBytes:
        address = int(self._do("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def unpin(self, memory: HostBytes) -> None:
        self._do("cudaFreeHost", memory.ctypes.data)

    def stream(self) -> int:
        return int(self._do("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def end_stream(self, stream: int) -> None:
        self._do("cudaStreamDestroy", stream)

    def upload(self, address: int, host: HostBytes, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, stream)

    def download(self, host: HostBytes, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do("cudaMemcpyAsync", host.ctypes.data, address, host.nbytes, kind, stream)

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        self._do("cudaMemsetAsync", address, byte, size, stream)

    def synchronize(self, stream: int) -> None:
        self._do("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        # Of this thread alone: another engine may allocate while this one records.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        recorded = self._do("cudaStreamEndCapture", stream)
        graph = self._do("cudaGraphInstantiateWithFlags", recorded, 0)
        self._do("cudaGraphDestroy", recorded)
        self._graphs[int(graph)] = graph
        return int(graph)

    def launch(self, graph: int, stream: int) -> None:
        self._do("cudaGraphLaunch", self._graphs[graph], stream)

    def end_graph(self, graph: int) -> None:
        self._do("cudaGraphExecDestroy", self._graphs.pop(graph))

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        return self._kernels.load(code, entry, shared)

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        self._kernels.launch(launch, stream)

    def unload_kernel(self, kernel: int) -> None:
        self._kernels.unload(kernel)

    def _do(self, function: str, *arguments: Any) -> Any:
        """Calls the runtime; what it returns besides its error code."""
        error, *values = getattr(self._cuda, function)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise self._error(function, error)
        return values[0] if values else None

    def _error(self, function: str, error: Any) -> EngineError:
        """Only memory can be short for a while. Any other error may have spoilt the context, of
        which the runtime says nothing: it is not trusted again."""
        words = f"{function} on GPU {self._index} failed with {_name(error)}"
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            return OutOfDeviceMemory(f"{words}; use smaller batches or fewer contexts")
        if "StreamCapture" in _name(error):  # refused to record, which spoils nothing
            return EngineRunError(words)
        return DeviceLost(f"{words}; restart the server")


def _name(error: Any) -> str:
    return str(getattr(error, "name", error))


def _runtime() -> Any:
    for importing in (_bindings, _before_12_6):
        try:
            return importing()
        except ImportError:
            continue
    raise RuntimeMissing(f"cuda-python is not installed; {MISSING}")


def _bindings() -> Any:
    return import_module("cuda.bindings.runtime")


def _before_12_6() -> Any:
    return import_module("cuda.cudart")
