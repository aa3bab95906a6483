"""The calls that the Device protocol makes to cuda-python are accepted by the real package.

Every call goes to the real function, which converts its arguments before it finds that there is no
device. What a device would have answered is made up, in the package's own types.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engines.cuda import CudaDevice, _runtime, open_device
from engines.cuda_kernel import CudaKernels, driver_module
from engines.device import KernelLaunch
from engines.errors import RuntimeMissing


class WithoutDevice:
    """One API of the package, whose every call succeeds and does nothing."""

    def __init__(self, package: Any, success: Any, answers: dict[str, Any]) -> None:
        self.package, self.success, self.answers = package, success, answers
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.package, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.called.add(name)
            try:
                error, *_ = found(*arguments)
                assert error != self.success, f"{name} reached a device"
            except RuntimeError:  # the driver's library is not there
                pass
            return (self.success, *self.answers.get(name, ()))

        return call


@pytest.fixture
def runtime() -> Iterator[WithoutDevice]:
    """The runtime API. On a machine with a GPU the tests marked gpu say more than this can."""
    try:
        open_device(0)
    except RuntimeMissing:
        pass
    else:
        pytest.skip("there is a GPU here")
    cuda = _runtime()
    properties = cuda.cudaDeviceProp()
    properties.name, properties.major, properties.minor = b"NVIDIA H200".ljust(256, b"\0"), 9, 0
    memory = (ctypes.c_uint8 * 64)()
    answers = {
        "cudaGetDeviceProperties": (properties,),
        "cudaMalloc": (4096,),
        "cudaHostAlloc": (ctypes.addressof(memory),),
        "cudaStreamCreateWithFlags": (cuda.cudaStream_t(7),),
        "cudaStreamEndCapture": (cuda.cudaGraph_t(8),),
        "cudaGraphInstantiateWithFlags": (cuda.cudaGraphExec_t(9),),
    }
    yield WithoutDevice(cuda, cuda.cudaError_t.cudaSuccess, answers)
    del memory


@pytest.fixture
def driver() -> WithoutDevice:
    cuda = driver_module()
    answers = {
        "cuModuleLoadData": (cuda.CUmodule(10),),
        "cuModuleGetFunction": (cuda.CUfunction(11),),
    }
    return WithoutDevice(cuda, cuda.CUresult.CUDA_SUCCESS, answers)


def test_the_runtime_api_takes_every_argument_and_its_answers_are_understood(
    runtime: WithoutDevice,
) -> None:
    device = CudaDevice(runtime, 0)
    assert (device.name, device.capability) == ("NVIDIA H200", (9, 0))
    host, stream, address = device.pinned(64), device.stream(), device.allocate(64)
    assert (host.nbytes, stream, address) == (64, 7, 4096)
    device.upload(address, host[:10], stream)
    device.download(host[:20], address, stream)
    device.fill(address, 255, 4, stream)
    device.synchronize(stream)
    device.begin_capture(stream)
    graph = device.end_capture(stream)
    assert graph == 9
    device.launch(graph, stream)
    device.end_graph(graph)
    device.unpin(host)
    device.free(address)
    device.end_stream(stream)
    assert len(runtime.called) == 18


def test_the_driver_api_takes_every_argument_and_its_answers_are_understood(
    runtime: WithoutDevice, driver: WithoutDevice
) -> None:
    kernels = CudaKernels(0, driver)
    kernel = kernels.load(b"\x7fELF" + bytes(60), "label_pixels", 200_000)
    assert kernel == 11
    arguments = (np.uint64(1 << 46), np.int32(-3), np.uint64(0))
    kernels.launch(KernelLaunch(kernel, (128, 1, 1), 256, 200_000, arguments), 7)
    kernels.unload(kernel)
    assert len(driver.called) == 5
