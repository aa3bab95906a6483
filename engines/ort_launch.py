"""Runs a graph with ONNX Runtime on a device, on fixed addresses (I/O binding)."""

import contextlib
import io
import logging
from importlib import import_module
from typing import Any, Literal

import onnxruntime as ort

from engines.errors import EngineOpenError, EngineRunError, OutOfDeviceMemory, RuntimeMissing
from engines.onnx_graph import OnnxGraph
from engines.ort import first_line, only_size
from engines.run_memory import RunMemory

Provider = Literal["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"]
CUDA: Provider = "CUDAExecutionProvider"
TENSORRT: Provider = "TensorrtExecutionProvider"
NAMES: dict[Provider, str] = {
    CUDA: "onnxruntime-cuda",
    TENSORRT: "onnxruntime-tensorrt",
    "CPUExecutionProvider": "onnxruntime-cpu",
}
_log = logging.getLogger(__name__)


class OrtLauncher:
    """Launcher protocol. Owns its session, but not the RunMemory."""

    def __init__(
        self,
        graph: OnnxGraph,
        memory: RunMemory,
        batch_sizes: tuple[int, ...],
        provider: Provider,
        half: bool,
    ) -> None:
        """`half` allows float16 kernels. Raises RuntimeMissing if the provider is unavailable,
        EngineOpenError."""
        self._memory, self._provider = memory, provider
        self._session: Any = open_device_session(
            graph, provider_options(provider, memory, half), only_size(batch_sizes)
        )
        self._bindings = {rows: self._binding(rows) for rows in batch_sizes}

    @property
    def name(self) -> str:
        return f"{NAMES[self._provider]}-{ort.__version__}"

    def launch(self, rows: int) -> None:
        # The session may use another stream, so the inputs must have arrived.
        self._memory.device.synchronize(self._memory.stream)
        try:
            self._session.run_with_iobinding(self._bindings[rows])
        except Exception as error:  # the runtime has no common exception class
            raise _run_error(error) from error

    def close(self) -> None:
        self._bindings.clear()
        self._session = None

    def _binding(self, rows: int) -> Any:
        binding, memory = self._session.io_binding(), self._memory
        kind = "cpu" if self._provider == "CPUExecutionProvider" else "cuda"
        for specs, bind in (
            (memory.inputs, binding.bind_input),
            (memory.outputs, binding.bind_output),
        ):
            for name, spec in specs.items():
                shape = [rows, *spec.extents] if spec.batched else list(spec.extents)
                number = 0 if kind == "cpu" else memory.device.index
                bind(name, kind, number, spec.dtype.type, shape, memory.addresses[name])
        return binding


def provider_options(
    provider: Provider, memory: RunMemory, half: bool
) -> list[tuple[str, dict[str, str]]]:
    """The provider and its options, then the one for operators that it lacks. ONNX Runtime itself
    adds the CPU, for shape computations."""
    if provider == "CPUExecutionProvider":
        return [(provider, {})]
    on_device = {
        "device_id": str(memory.device.index),
        "user_compute_stream": str(memory.stream),
    }
    # HEURISTIC: kernels chosen by timing would differ between replicas. TF32 is not float32.
    cuda = on_device | {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if provider == CUDA:
        return [(CUDA, cuda)]
    return [(TENSORRT, on_device | {"trt_fp16_enable": "1" if half else "0"}), (CUDA, cuda)]


def open_device_session(
    graph: OnnxGraph,
    providers: list[tuple[str, dict[str, str]]],
    batch: int | None,
    runtime: Any = ort,
) -> ort.InferenceSession:
    """A session whose first provider is active; tests give another `runtime` than onnxruntime.

    Raises RuntimeMissing, EngineOpenError.
    """
    wanted, available = providers[0][0], runtime.get_available_providers()
    if wanted not in available:
        raise RuntimeMissing(
            f"ONNX Runtime lacks {wanted}, it has {', '.join(available)}; install "
            "onnxruntime-gpu in place of onnxruntime"
        )
    _load_libraries(runtime, wanted)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if batch is not None:
        options.add_free_dimension_override_by_name("N", batch)
    try:
        session = runtime.InferenceSession(graph.content, options, providers=providers)
    except Exception as error:  # the runtime has no common exception class
        raise EngineOpenError(
            f"{graph.path} cannot be loaded by ONNX Runtime: {first_line(error)}"
        ) from error
    active = session.get_providers()
    if active[:1] != [wanted]:  # ONNX Runtime silently drops a provider that it cannot load
        needs = _NEEDS.get(wanted, "check that its CUDA and cuDNN libraries are installed")
        raise RuntimeMissing(
            f"{wanted} could not be loaded, ONNX Runtime uses {', '.join(active)}; {needs}"
        )
    return session


# The tensorrt package that the extra `gpu` and the image gpu-trt have is of version 11.
_NEEDS: dict[str, str] = {  # by provider
    TENSORRT: "it needs TensorRT 10 (libnvinfer.so.10), and not the 11 of the image gpu-trt: use "
    "the engine tensorrt, or install tensorrt of version 10"
}


def _load_libraries(runtime: Any, provider: str) -> None:
    """Loads the CUDA, cuDNN and TensorRT libraries of Python packages, where the dynamic linker
    does not look for them."""
    if provider == "CPUExecutionProvider":
        return
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # where ONNX Runtime prints what it does not find
        if hasattr(runtime, "preload_dlls"):  # from 1.21
            runtime.preload_dlls(directory="")
    if said.getvalue():
        _log.info("%s", " ".join(said.getvalue().split()))
    if provider == TENSORRT:
        with contextlib.suppress(ImportError, OSError):
            import_module("tensorrt")  # loads its libraries


def _run_error(error: Exception) -> EngineRunError:
    line = first_line(error)
    lower = str(error).lower()
    if "out of memory" in lower or "failed to allocate memory" in lower:
        return OutOfDeviceMemory(f"ONNX Runtime failed: {line}; use smaller batches")
    return EngineRunError(f"ONNX Runtime failed: {line}")
