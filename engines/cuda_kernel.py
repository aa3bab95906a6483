"""Loads and launches compiled kernels (cubins) over cuda-python's driver API, because the runtime
API cannot load kernels in every supported version."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np

from engines.device import KernelLaunch
from engines.errors import (
    DeviceLost,
    EngineError,
    EngineOpenError,
    EngineRunError,
    OutOfDeviceMemory,
)

# Driver errors (after CUDA_ERROR_) that mean the kernel's code does not fit this GPU; all others
# mean that the device is lost.
CODE_ERRORS = (
    "INVALID_IMAGE", "INVALID_PTX", "INVALID_SOURCE", "INVALID_VALUE", "NO_BINARY_FOR_GPU",
    "NOT_FOUND", "UNSUPPORTED_PTX_VERSION",
)  # fmt: skip


class CudaKernels:
    """Kernels on one device, in the CUDA context that is current on the calling thread."""

    def __init__(self, index: int, driver: Any = None) -> None:
        """`driver` is cuda.bindings.driver; None imports it when the first kernel is loaded."""
        self._index, self._driver = index, driver
        self._loaded: dict[int, tuple[Any, Any]] = {}  # module and function, by kernel

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """See Device.load_kernel. Raises EngineOpenError, DeviceLost."""
        self._driver = self._driver or driver_module()
        try:
            module = self._call("cuModuleLoadData", code)
            try:
                function = self._call("cuModuleGetFunction", module, entry.encode())
                limit = self._driver.CUfunction_attribute
                limit = limit.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call("cuFuncSetAttribute", function, limit, shared)
            except EngineError:
                self._call("cuModuleUnload", module)
                raise
        except DeviceLost as error:
            if not any(f"CUDA_ERROR_{name}" in str(error) for name in CODE_ERRORS):
                raise
            raise EngineOpenError(
                f"GPU {self._index} cannot run the kernel {entry} ({str(error).split(';')[0]}); "
                "export the bundle again with --fused for this GPU"
            ) from error
        address = address_of(function)
        self._loaded[address] = (module, function)
        return address

    def launch(self, launch: KernelLaunch, stream: int) -> None:
        """See Device.launch_kernel. Raises DeviceLost, OutOfDeviceMemory."""
        # The driver takes an array of pointers to the values and copies the values before it
        # returns.
        values = [
            ctypes.c_uint64(int(a)) if isinstance(a, np.uint64) else ctypes.c_int32(int(a))
            for a in launch.arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        _, function = self._loaded[launch.kernel]
        self._call(
            "cuLaunchKernel", function, *launch.grid, launch.threads, 1, 1, launch.shared, stream,
            ctypes.addressof(pointers), 0,
        )  # fmt: skip

    def unload(self, kernel: int) -> None:
        """See Device.unload_kernel. Raises DeviceLost."""
        module, _ = self._loaded.pop(kernel)
        self._call("cuModuleUnload", module)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise self._error(name, error)
        return values[0] if values else None

    def _error(self, name: str, error: Any) -> EngineError:
        """Classifies errors like CudaDevice._error."""
        message = f"{name} on GPU {self._index} failed with {getattr(error, 'name', error)}"
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            return OutOfDeviceMemory(f"{message}; use smaller batches or fewer contexts")
        if "STREAM_CAPTURE" in message:
            return EngineRunError(message)
        return DeviceLost(f"{message}; restart the server")


def driver_module() -> Any:
    """The driver API of the installed cuda-python. Raises ImportError."""
    return import_module("cuda.bindings.driver")


def address_of(handle: Any) -> int:
    """A stream, graph or function of cuda-python as the number that other libraries take."""
    return int(import_module("cuda.bindings.utils").get_cuda_native_handle(handle))
