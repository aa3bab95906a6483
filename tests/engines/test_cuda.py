"""The Device protocol over cuda-python: its tuples and error codes become values and our errors."""

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda.bindings.runtime import cudaGraphExec_t, cudaStream_t

from engines.cuda import CudaDevice, open_device
from engines.errors import DeviceLost, EngineRunError, OutOfDeviceMemory, RuntimeMissing


class Error(IntEnum):
    """The codes of the runtime API that are told apart, and some of the others."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorECCUncorrectable = 214
    cudaErrorUnknown = 999


class Runtime:
    """As cuda.bindings.runtime: every function returns a tuple that begins with its error."""

    cudaError_t = Error
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaDeviceScheduleBlockingSync = 4

    def __init__(self, **fails: Error) -> None:
        self.fails, self.calls = fails, list[tuple[Any, ...]]()
        self.memory = (ctypes.c_uint8 * 64)()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            error = self.fails.get(name, Error.cudaSuccess)
            return (error, *self._values(name))

        return call

    def _values(self, name: str) -> tuple[Any, ...]:
        values: dict[str, Any] = {
            "cudaGetDeviceProperties": SimpleNamespace(name=b"NVIDIA H200\0\0", major=9, minor=0),
            "cudaMalloc": 4096,
            "cudaHostAlloc": ctypes.addressof(self.memory),
            "cudaStreamCreateWithFlags": cudaStream_t(7),
            "cudaStreamEndCapture": "recorded",
            "cudaGraphInstantiateWithFlags": cudaGraphExec_t(11),
        }
        return (values[name],) if name in values else ()


def test_a_device_tells_what_it_is() -> None:
    device = CudaDevice(Runtime(), 0)
    assert (device.name, device.capability, device.index) == ("NVIDIA H200", (9, 0), 0)


def test_threads_that_wait_for_the_device_sleep() -> None:
    runtime = Runtime()
    CudaDevice(runtime, 2)
    assert runtime.calls[:2] == [("cudaSetDevice", 2), ("cudaSetDeviceFlags", 4)]


def test_calls_have_the_order_of_arguments_that_cuda_wants() -> None:
    runtime = Runtime()
    device = CudaDevice(runtime, 2)
    host, stream, address = device.pinned(64), device.stream(), device.allocate(64)
    assert host.shape == (64,) and host.dtype == np.uint8
    runtime.calls.clear()
    device.upload(address, host[:10], stream)
    device.download(host[:20], address, stream)
    device.fill(address, 255, 4, stream)
    device.begin_capture(stream)
    graph = device.end_capture(stream)
    device.launch(graph, stream)
    device.end_graph(graph)
    device.unpin(host)
    at = ctypes.addressof(runtime.memory)
    assert runtime.calls == [
        ("cudaMemcpyAsync", 4096, at, 10, "up", 7),
        ("cudaMemcpyAsync", at, 4096, 20, "down", 7),
        ("cudaMemsetAsync", 4096, 255, 4, 7),
        ("cudaStreamBeginCapture", 7, "thread"),
        ("cudaStreamEndCapture", 7),
        ("cudaGraphInstantiateWithFlags", "recorded", 0),
        ("cudaGraphDestroy", "recorded"),
        ("cudaGraphLaunch", cudaGraphExec_t(11), 7),
        ("cudaGraphExecDestroy", cudaGraphExec_t(11)),
        ("cudaFreeHost", at),
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Error.cudaErrorMemoryAllocation, OutOfDeviceMemory),
        (Error.cudaErrorStreamCaptureUnsupported, EngineRunError),
        (Error.cudaErrorIllegalAddress, DeviceLost),
        (Error.cudaErrorECCUncorrectable, DeviceLost),
        (Error.cudaErrorUnknown, DeviceLost),
    ],
)
def test_only_memory_and_recording_may_fail_for_a_while(code: Error, kind: type[Exception]) -> None:
    device = CudaDevice(Runtime(cudaStreamSynchronize=code), 0)
    with pytest.raises(Exception, match=f"cudaStreamSynchronize on GPU 0 .*{code.name}") as caught:
        device.synchronize(7)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_machine_without_a_gpu_is_told_in_one_line() -> None:
    try:
        open_device(0)
    except RuntimeMissing as error:
        assert "--engine onnxruntime" in str(error) and "\n" not in str(error)
    else:
        with pytest.raises(RuntimeMissing, match="GPU is 99"):
            open_device(99)
