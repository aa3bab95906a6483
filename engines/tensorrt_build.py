"""An ONNX graph -> a TensorRT plan for the current GPU, with TensorRT 8.5.3 to 11.

The graph's own dtypes decide the precision. Versions with strongly typed networks follow them;
for 8.5 the precision of every layer is set from them and enforced.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.files import read_regular_file, replace_file
from engines.errors import EngineOpenError, RuntimeMissing
from engines.onnx_graph import OnnxGraph
from engines.request import check_batch_sizes
from engines.signature import ArraySpecs
from engines.tensorrt_module import (
    compute_capabilities,
    compute_capability,
    logger_from_module,
    member,
    version_of,
)

# Libraries that TensorRT 8.5 can take kernels from; they may be missing, so they are switched off.
EXTERNAL_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
WITHOUT_EXTERNAL_TACTICS = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
FLOATS = ("FLOAT", "HALF")
NOT_COMPUTING = ("CONSTANT", "SHAPE")  # layer types whose precision is not set
MAX_TIMING_BYTES = 256 << 20
_log = logging.getLogger(__name__)
Shapes = dict[str, tuple[int, ...]]  # by input name


@dataclass(frozen=True)
class PlanRequest:
    """Arguments of one build."""

    graph: OnnxGraph
    half: bool  # whether the graph computes in float16
    profiles: tuple[Shapes, ...]  # one per batch size; empty if all shapes of the graph are fixed
    timing_cache: Path | None = None  # file of kernel timings, read and then updated
    workspace_bytes: int | None = None  # None: up to all of the device's memory
    capabilities: tuple[str, ...] = ()  # TensorRT for RTX: the GPUs that the plan is for, "8.9"
    detailed: bool = False  # whether the builder describes every layer in its log
    # 0 to 5: higher ones search longer for faster kernels. None: TensorRT's default, 3.
    builder_optimization_level: int | None = None


def profiles_of(inputs: ArraySpecs, batch_sizes: tuple[int, ...]) -> tuple[Shapes, ...]:
    """Input shapes for each batch size. Raises EngineOpenError."""
    check_batch_sizes(batch_sizes)
    return tuple({n: (rows, *spec.extents) for n, spec in inputs.items()} for rows in batch_sizes)


def plan_from_graph(trt: Any, request: PlanRequest) -> bytes:
    """Builds the plan, which takes minutes. Raises EngineOpenError, RuntimeMissing."""
    log = logger_from_module(trt)
    log.forget()
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # raised by the package when there is no GPU
        raise RuntimeMissing(f"TensorRT cannot build here: {log.last_error}") from error
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, log, request.graph)
    config = builder.create_builder_config()
    _set_precision(trt, network, config, request)
    _set_tactics(trt, config)
    _set_capabilities(trt, config, request.capabilities)
    if request.detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _set_level(trt, config, request.builder_optimization_level)
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    for shapes in request.profiles:
        config.add_optimization_profile(_profile(builder, shapes))
    cache = _timing_cache(config, request.timing_cache)
    try:
        plan = builder.build_serialized_network(network, config)
    finally:  # the next attempt goes on from what was timed, whatever ended this one
        if request.timing_cache is not None:
            _write_timings(request.timing_cache, cache)
    if plan is None:
        raise EngineOpenError(
            f"TensorRT {version_of(trt)} cannot build {request.graph.path}: {log.last_error}"
        )
    return bytes(plan)


def _network_flags(trt: Any) -> int:
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = member(trt, "NetworkDefinitionCreationFlag", name)
        flags |= 0 if flag is None else 1 << int(flag)
    return flags


def strongly_typed(trt: Any) -> bool:
    """Whether this version takes the precision of each layer from the graph."""
    typed = member(trt, "NetworkDefinitionCreationFlag", "STRONGLY_TYPED") is not None
    return typed or member(trt, "BuilderFlag", "FP16") is None


def _parse(trt: Any, network: Any, log: Any, graph: OnnxGraph) -> None:
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph.content):
        reasons = [" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)]
        raise EngineOpenError(
            f"TensorRT {version_of(trt)} cannot parse {graph.path}: "
            f"{'; '.join(reasons) or 'TensorRT gave no reason'}"
        )


def _set_precision(trt: Any, network: Any, config: Any, request: PlanRequest) -> None:
    strict = member(trt, "BuilderFlag", "STRICT_NANS")  # from 10.6
    if strict is not None:
        config.set_flag(strict)  # without it 0 * x and x - x may become 0 where x is NaN
    tf32 = member(trt, "BuilderFlag", "TF32")
    if tf32 is not None:
        config.clear_flag(
            tf32
        )  # TF32 is on by default: float32 with 10 instead of 23 mantissa bits
    if strongly_typed(trt):
        return
    if request.half:
        config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    types = [_constrain(trt, network.get_layer(i)) for i in range(network.num_layers)]
    if request.half and "HALF" not in types:
        raise EngineOpenError(
            f"{request.graph.path} should compute in float16 and has no layer that does; export "
            "the bundle again"
        )


def _constrain(trt: Any, layer: Any) -> str:
    """Fixes a layer's precision to that of its tensors; returns "HALF", "FLOAT", or "" for a layer
    that computes no floats."""
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    tensors = [layer.get_input(i) for i in range(layer.num_inputs)] + outputs
    found = {t.dtype.name for t in tensors if t is not None and not t.is_shape_tensor}
    for i, tensor in enumerate(outputs):
        if tensor.dtype.name in FLOATS and not tensor.is_shape_tensor:
            layer.set_output_type(i, tensor.dtype)
    floats = found & set(FLOATS)
    if not floats or layer.type in [member(trt, "LayerType", name) for name in NOT_COMPUTING]:
        return ""
    computing = "HALF" if floats == {"HALF"} else "FLOAT"
    layer.precision = getattr(trt.DataType, computing)
    return computing


def _set_tactics(trt: Any, config: Any) -> None:
    external = [member(trt, "TacticSource", name) for name in EXTERNAL_TACTICS]
    without = member(trt, "PreviewFeature", WITHOUT_EXTERNAL_TACTICS)
    if any(source is not None for source in external):
        sources = config.get_tactic_sources()
        for source in external:
            sources &= ~(0 if source is None else 1 << int(source))
        config.set_tactic_sources(sources)
    if without is not None:
        config.set_preview_feature(without, True)


def _set_capabilities(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    """Raises EngineOpenError for a capability that the builder does not know."""
    targets = [(text, compute_capability(trt, text)) for text in capabilities]
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, (text, target) in enumerate(targets):
        if target is None or not config.set_compute_capability(target, index):
            raise EngineOpenError(
                f"compute capability {text} is unknown to TensorRT {version_of(trt)}, which "
                f"builds for {', '.join(compute_capabilities(trt))}"
            )


def _set_level(trt: Any, config: Any, level: int | None) -> None:
    if level is None:
        return
    if not hasattr(config, "builder_optimization_level"):
        raise EngineOpenError(
            f"the builder optimization level is {level}; TensorRT {version_of(trt)} has none, it "
            "came with 8.6: leave it out"
        )
    config.builder_optimization_level = level


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    return profile


def _timing_cache(config: Any, path: Path | None) -> Any:
    """Sets and returns the file's timing cache, or an empty one if the file does not fit this
    TensorRT version and GPU; None without a file."""
    if path is None:
        return None
    try:
        known = read_regular_file(path, MAX_TIMING_BYTES)
    except OSError:
        known = b""  # without known timings the build takes longer
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _write_timings(path: Path, cache: Any) -> None:
    """Replaces the file. Timings are only worth time, so that no failure here ends a build."""
    try:
        replace_file(path, bytes(cache.serialize()))
    except Exception as error:
        _log.warning("the timings of kernels are not kept in %s: %s", path, error)
