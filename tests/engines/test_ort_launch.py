"""ONNX Runtime's GPU providers: their libraries are loaded first, and a missing one is named.

The runtime is a fake, because the package of the tests has no GPU providers.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from engines.errors import RuntimeMissing
from engines.onnx_graph import OnnxGraph
from engines.ort_launch import CUDA, TENSORRT, Provider, open_device_session

CPU: Provider = "CPUExecutionProvider"
GRAPH = OnnxGraph(Path("x.onnx"), b"")


class FakeRuntime:
    """As onnxruntime-gpu, which drops providers whose libraries it does not find."""

    def __init__(self, *found: Provider) -> None:
        self.found, self.calls = found, list[Any]()
        self.SessionOptions = ort.SessionOptions

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, CPU]

    def preload_dlls(self, directory: str | None = None) -> None:
        print("Failed to load\nlibsomething.so")
        self.calls.append(("preload_dlls", directory))

    def InferenceSession(self, content: bytes, options: Any, providers: Any) -> Any:
        active = [name for name, _ in providers if name in self.found] + [CPU]
        self.calls.append("InferenceSession")
        return SimpleNamespace(get_providers=lambda: active)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_libraries_are_loaded_before_the_session(
    provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = FakeRuntime(CUDA, TENSORRT)
    session = open_device_session(GRAPH, [(provider, {})], 8, runtime)
    assert session.get_providers()[0] == provider
    assert runtime.calls == [("preload_dlls", ""), "InferenceSession"]
    assert capsys.readouterr().out == "", "standard output is the command's"


def test_the_cpu_needs_no_library() -> None:
    runtime = FakeRuntime()
    open_device_session(GRAPH, [(CPU, {})], 8, runtime)
    assert runtime.calls == ["InferenceSession"]


def test_a_runtime_before_1_21_is_opened_without() -> None:
    runtime = FakeRuntime(CUDA)
    old = SimpleNamespace(
        get_available_providers=runtime.get_available_providers,
        SessionOptions=ort.SessionOptions,
        InferenceSession=runtime.InferenceSession,
    )
    open_device_session(GRAPH, [(CUDA, {})], None, old)
    assert runtime.calls == ["InferenceSession"]


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (CUDA, r"uses CPUExecutionProvider; check that its CUDA and cuDNN"),
        (TENSORRT, r"uses CUDAExecution.*; it needs TensorRT 10 \(libnvinfer.so.10\).* tensorrt"),
    ],
)
def test_a_provider_that_was_dropped_is_told_with_what_it_needs(
    provider: Provider, words: str
) -> None:
    runtime = FakeRuntime(*([CUDA] if provider == TENSORRT else []))
    providers: list[tuple[str, dict[str, str]]] = [(provider, {}), (CUDA, {})]
    with pytest.raises(RuntimeMissing, match=words) as caught:
        open_device_session(GRAPH, providers, 8, runtime)
    assert "\n" not in str(caught.value)


def test_the_package_has_what_is_called() -> None:
    ort.preload_dlls(directory="")
