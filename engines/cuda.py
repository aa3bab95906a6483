"""The Device protocol over cuda-python's runtime API; functions are called by their CUDA names."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np

from engines.cuda_kernel import CudaKernels, address_of
from engines.device import HostBytes, KernelLaunch
from engines.errors import (
    DeviceLost,
    EngineError,
    EngineRunError,
    OutOfDeviceMemory,
    RuntimeMissing,
)

NO_GPU = "this engine needs an NVIDIA GPU and driver; without one, take --engine onnxruntime"


def open_device(index: int = 0) -> "CudaDevice":
    """GPU number `index` of this machine, from 0. Raises RuntimeMissing."""
    runtime = _runtime()
    try:
        error, count = runtime.cudaGetDeviceCount()
    except RuntimeError as cause:  # some versions, without the driver's library
        raise RuntimeMissing(f"no NVIDIA driver was found ({cause}); {NO_GPU}") from cause
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise RuntimeMissing(f"no NVIDIA GPU was found ({_name(error)}); {NO_GPU}")
    if not 0 <= index < count:
        raise RuntimeMissing(f"GPU is {index}; this machine has GPUs 0 to {count - 1}")
    return CudaDevice(runtime, index)


class CudaDevice:
    """Device protocol over the CUDA runtime API."""

    def __init__(self, runtime: Any, index: int) -> None:
        """`runtime` is cuda.bindings.runtime."""
        self._cuda, self._index = runtime, index
        self.use()
        # Threads that wait for the device sleep. By default they spin, each on a core of its own
        # that encoding and the network need.
        self._call("cudaSetDeviceFlags", self._cuda.cudaDeviceScheduleBlockingSync)
        properties = self._call("cudaGetDeviceProperties", index)
        self._device_name: str = properties.name.decode().rstrip("\0")
        self._capability = (int(properties.major), int(properties.minor))
        self._graphs: dict[int, Any] = {}  # handle objects, which own the graphs, by address
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
        self._call("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def pinned(self, size: int) -> HostBytes:
        address = int(self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def unpin(self, memory: HostBytes) -> None:
        self._call("cudaFreeHost", memory.ctypes.data)

    def stream(self) -> int:
        return address_of(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def end_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def upload(self, address: int, host: HostBytes, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, stream)

    def download(self, host: HostBytes, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, address, host.nbytes, kind, stream)

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        self._call("cudaMemsetAsync", address, byte, size, stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        # Capture restricts only this thread: another engine may allocate meanwhile.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        recorded = self._call("cudaStreamEndCapture", stream)
        graph = self._call("cudaGraphInstantiateWithFlags", recorded, 0)
        self._call("cudaGraphDestroy", recorded)
        address = address_of(graph)
        self._graphs[address] = graph
        return address

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", self._graphs[graph], stream)

    def end_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", self._graphs.pop(graph))

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        return self._kernels.load(code, entry, shared)

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        self._kernels.launch(launch, stream)

    def unload_kernel(self, kernel: int) -> None:
        self._kernels.unload(kernel)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Calls a CUDA function and returns its value, if any. Raises EngineError."""
        error, *values = getattr(self._cuda, function)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise self._error(function, error)
        return values[0] if values else None

    def _error(self, function: str, error: Any) -> EngineError:
        """Missing memory and a refused capture leave the device usable. Any other error may have
        corrupted the CUDA context, which CUDA does not report, so the device counts as lost."""
        message = f"{function} on GPU {self._index} failed with {_name(error)}"
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            return OutOfDeviceMemory(f"{message}; use smaller batches or fewer contexts")
        if "StreamCapture" in _name(error):
            return EngineRunError(message)
        return DeviceLost(f"{message}; restart the server")


def _name(error: Any) -> str:
    return str(getattr(error, "name", error))


def _runtime() -> Any:
    try:
        import_module("cuda.bindings.utils").get_cuda_native_handle  # noqa: B018
        return import_module("cuda.bindings.runtime")
    except (ImportError, AttributeError) as error:
        raise RuntimeMissing(
            f"cuda-python of 12.9.1 or later is not installed ({error}); install the "
            "extra `gpu`, or `rtx` for TensorRT for RTX"
        ) from error
