"""The label branch at 512 px by TensorRT, from the ONNX files that gpu_branch exports."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_results import Results
from engines.cuda import open_device
from engines.device import Device
from engines.errors import EngineError
from engines.onnx_graph import OnnxGraph
from engines.tensorrt_build import PlanRequest, plan_from_graph
from engines.tensorrt_module import logger_from_module, tensorrt_module, version_of
from engines.tensorrt_plan import DTYPES

PART, ROUNDS = "branch-tensorrt", 20


def main(folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    try:
        trt, device = tensorrt_module(), open_device()
    except EngineError as error:
        return results.add(PART, "left out", variant="TensorRT", reason=str(error))
    for precision in ("float16", "float32"):
        graph = folder / f"branch.{precision}.onnx"
        name = f"TensorRT {version_of(trt)}, {precision}"
        if results.has(PART, variant=name):
            continue
        if not graph.exists():
            results.add(PART, "left out", variant=name, reason=f"{graph.name} was not exported")
            continue
        began = time.monotonic()
        onnx = OnnxGraph(graph, graph.read_bytes())
        request = PlanRequest(onnx, precision == "float16", (), folder / "branch.timing")
        try:
            data = plan_from_graph(trt, request)
            built = time.monotonic() - began
            ms, memory = _measured(trt, device, data)
        except EngineError as error:
            results.add(PART, "failed", variant=name, reason=str(error)[:160])
        else:
            results.add(PART, variant=name, ms=round(ms, 3), peak_MiB=memory, build_s=round(built))


def _measured(trt: Any, device: Device, data: bytes) -> tuple[float, int]:
    """Median milliseconds of a CUDA graph's launch until it ends, and the plan's working memory in
    bytes."""
    log = logger_from_module(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(f"the plan is refused: {log.last_error}")
    context, stream = engine.create_execution_context(), device.stream()
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        size: int = DTYPES[engine.get_tensor_dtype(name).name].itemsize
        for extent in engine.get_tensor_shape(name):
            size *= extent
        address = device.allocate(size)
        device.fill(address, 0, size, stream)
        context.set_tensor_address(name, address)
    if not context.execute_async_v3(stream):
        raise EngineError(f"TensorRT failed: {log.last_error}")
    device.synchronize(stream)
    device.begin_capture(stream)
    context.execute_async_v3(stream)
    graph = device.end_capture(stream)
    times = []
    for _ in range(ROUNDS + 3):
        began = time.perf_counter()
        device.launch(graph, stream)
        device.synchronize(stream)
        times.append((time.perf_counter() - began) * 1e3)
    needed = getattr(engine, "device_memory_size_v2", None) or engine.device_memory_size
    return statistics.median(times[3:]), int(needed) >> 20


if __name__ == "__main__":
    main(Path(sys.argv[2]))
