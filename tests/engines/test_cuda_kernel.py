"""The driver API behind kernels: what reaches it, and what its errors become."""

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda.bindings.driver import CUfunction

from engines.cuda_kernel import CudaKernels
from engines.device import Argument, KernelLaunch
from engines.errors import DeviceLost, EngineOpenError, EngineRunError, OutOfDeviceMemory


class Result(IntEnum):
    """Of CUresult, what is told apart and some of the others."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


class Driver:
    """As cuda.bindings.driver: every function returns a tuple that begins with its error."""

    CUresult = Result
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self, **fails: Result) -> None:
        self.fails, self.calls = fails, list[tuple[Any, ...]]()
        self.values: list[int] = []  # of the last launch's parameters

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            if name == "cuLaunchKernel":
                self.values = self._parameters(arguments[9])
            value = {"cuModuleLoadData": "module", "cuModuleGetFunction": CUfunction(5)}.get(name)
            return (self.fails.get(name, Result.CUDA_SUCCESS), *([] if value is None else [value]))

        return call

    @staticmethod
    def _parameters(address: int) -> list[int]:
        """As a kernel of (pointer, int, pointer) reads them."""
        pointers = (ctypes.c_void_p * 3).from_address(address)
        kinds = (ctypes.c_uint64, ctypes.c_int32, ctypes.c_uint64)
        return [kind.from_address(at or 0).value for kind, at in zip(kinds, pointers, strict=True)]


def test_arguments_arrive_as_the_kernel_reads_them() -> None:
    driver = Driver()
    kernels = CudaKernels(0, driver)
    kernel = kernels.load(b"code", "label_pixels", 155648)
    arguments: list[Argument] = [np.uint64(2**63 + 16), np.int32(-7), np.uint64(0)]
    kernels.launch(KernelLaunch(kernel, (64, 2, 1), 256, 155648, arguments), 77)
    kernels.unload(kernel)
    assert driver.values == [2**63 + 16, -7, 0]
    launch = driver.calls[3]
    assert launch[:9] == ("cuLaunchKernel", CUfunction(5), 64, 2, 1, 256, 1, 1, 155648)
    assert launch[9] == 77 and launch[11] == 0
    assert driver.calls[:3] == [
        ("cuModuleLoadData", b"code"),
        ("cuModuleGetFunction", "module", b"label_pixels"),
        ("cuFuncSetAttribute", CUfunction(5), 8, 155648),
    ]
    assert driver.calls[4:] == [("cuModuleUnload", "module")]


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("cuModuleLoadData", Result.CUDA_ERROR_INVALID_IMAGE),
        ("cuModuleGetFunction", Result.CUDA_ERROR_NOT_FOUND),
        ("cuFuncSetAttribute", Result.CUDA_ERROR_INVALID_VALUE),
    ],
)
def test_code_that_a_gpu_refuses_is_no_lost_device(function: str, code: Result) -> None:
    driver = Driver(**{function: code})
    with pytest.raises(EngineOpenError, match=rf"cannot run the kernel f .*{code.name}.*--fused"):
        CudaKernels(0, driver).load(b"code", "f", 1)
    unloaded = ("cuModuleUnload", "module") in driver.calls
    assert unloaded == (function != "cuModuleLoadData")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Result.CUDA_ERROR_OUT_OF_MEMORY, OutOfDeviceMemory),
        (Result.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, EngineRunError),
        (Result.CUDA_ERROR_ILLEGAL_ADDRESS, DeviceLost),
    ],
)
def test_a_failed_launch_is_told_as_what_it_is(code: Result, kind: type[Exception]) -> None:
    kernels = CudaKernels(0, Driver(cuLaunchKernel=code))
    kernel = kernels.load(b"code", "f", 1)
    with pytest.raises(Exception, match=f"cuLaunchKernel on GPU 0 .*{code.name}") as caught:
        kernels.launch(
            KernelLaunch(kernel, (1, 1, 1), 32, 0, [np.uint64(0), np.int32(0), np.uint64(0)]), 1
        )
    assert type(caught.value) is kind and "\n" not in str(caught.value)
