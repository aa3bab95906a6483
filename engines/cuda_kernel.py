"""Compiled kernels by cuda-python's driver API: the runtime API loads none in all its versions."""

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

# Of the code, and not of the device.
REFUSALS = (
    "INVALID_IMAGE", "INVALID_PTX", "INVALID_SOURCE", "INVALID_VALUE", "NO_BINARY_FOR_GPU",
    "NOT_FOUND", "UNSUPPORTED_PTX_VERSION",
)  # fmt: skip


class CudaKernels:
    """Of one device, in the context that the runtime API made current on this thread."""

    def __init__(self, index: int, driver: Any = None) -> None:
        """`driver` is cuda.bindings.driver, or cuda.cuda before cuda-python 12.6; None: found when
        a kernel is loaded."""
        self._index, self._driver = index, driver
        self._loaded: dict[int, tuple[Any, Any]] = {}  # module and function

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """Raises EngineOpenError, DeviceLost."""
        self._driver = self._driver or driver_module()
        try:
            module = self._do("cuModuleLoadData", code)
            try:
                function = self._do("cuModuleGetFunction", module, entry.encode())
                limit = self._driver.CUfunction_attribute
                limit = limit.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._do("cuFuncSetAttribute", function, limit, shared)
            except EngineError:
                self._do("cuModuleUnload", module)
                raise
        except DeviceLost as error:
            if not any(f"CUDA_ERROR_{word}" in str(error) for word in REFUSALS):
                raise
            raise EngineOpenError(
                f"GPU {self._index} refuses the kernel {entry} ({str(error).split(';')[0]}); "
                "export the bundle again with --fused for this GPU"
            ) from error
        self._loaded[int(function)] = (module, function)
        return int(function)

    def launch(self, launch: KernelLaunch, stream: int) -> None:
        """Raises DeviceLost, OutOfDeviceMemory."""
        # An array of pointers to the values, which the driver copies before it returns.
        values = [
            ctypes.c_uint64(int(a)) if isinstance(a, np.uint64) else ctypes.c_int32(int(a))
            for a in launch.arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        _, function = self._loaded[launch.kernel]
        self._do(
            "cuLaunchKernel", function, *launch.grid, launch.threads, 1, 1, launch.shared, stream,
            ctypes.addressof(pointers), 0,
        )  # fmt: skip

    def unload(self, kernel: int) -> None:
        """Raises DeviceLost."""
        module, _ = self._loaded.pop(kernel)
        self._do("cuModuleUnload", module)

    def _do(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise self._error(name, error)
        return values[0] if values else None

    def _error(self, name: str, error: Any) -> EngineError:
        """As engines.cuda sorts them."""
        words = f"{name} on GPU {self._index} failed with {getattr(error, 'name', error)}"
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            return OutOfDeviceMemory(f"{words}; use smaller batches or fewer contexts")
        if "STREAM_CAPTURE" in words:
            return EngineRunError(words)
        return DeviceLost(f"{words}; restart the server")


def driver_module() -> Any:
    """Of whichever cuda-python is installed. Raises ImportError."""
    try:
        return import_module("cuda.bindings.driver")
    except ImportError:
        return import_module("cuda.cuda")
