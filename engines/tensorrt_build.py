"""An ONNX graph -> a TensorRT plan for the GPU at hand, by one path for versions 8.5.3 to 11.

Precision is in the graph. Where the version types networks by their graph, nothing is said about
it; 8.5 needs to be told, layer by layer, and is then held to it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import EngineOpenError, RuntimeMissing
from engines.request import check_batch_sizes
from engines.signature import Arrays
from engines.tensorrt_module import logger_from_module, member, version_of

# Sources of kernels in libraries that 8.5 can do without, and that need not be there.
EXTERNAL_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
WITHOUT_EXTERNAL_TACTICS = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
FLOATS = ("FLOAT", "HALF")
NOT_COMPUTING = ("CONSTANT", "SHAPE")

Shapes = dict[str, tuple[int, ...]]  # of every input


@dataclass(frozen=True)
class PlanRequest:
    """What to build."""

    graph: Path
    half: bool  # whether the graph is the one in half precision
    profiles: tuple[Shapes, ...]  # none for a graph whose shapes are all fixed
    timing_cache: Path | None = None  # read, and written again
    workspace_bytes: int | None = None  # None: all the device has


def profiles_of(inputs: Arrays, batch_sizes: tuple[int, ...]) -> tuple[Shapes, ...]:
    """A profile for each batch size, for that size alone. Raises EngineOpenError."""
    check_batch_sizes(batch_sizes)
    return tuple({n: (rows, *spec.extents) for n, spec in inputs.items()} for rows in batch_sizes)


def plan_from_graph(trt: Any, request: PlanRequest) -> bytes:
    """Builds the plan; minutes. Raises EngineOpenError, RuntimeMissing."""
    log = logger_from_module(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # how the package says that there is no GPU
        raise RuntimeMissing(f"TensorRT cannot build here: {log.last_error}") from error
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, log, request.graph)
    config = builder.create_builder_config()
    _set_precision(trt, network, config, request)
    _set_tactics(trt, config)
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    for shapes in request.profiles:
        config.add_optimization_profile(_profile(builder, shapes))
    cache = _timing_cache(config, request.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineOpenError(
            f"TensorRT {version_of(trt)} cannot build {request.graph}: {log.last_error}"
        )
    if request.timing_cache is not None and cache is not None:
        request.timing_cache.write_bytes(bytes(cache.serialize()))
    return bytes(plan)


def _network_flags(trt: Any) -> int:
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = member(trt, "NetworkDefinitionCreationFlag", name)
        flags |= 0 if flag is None else 1 << int(flag)
    return flags


def strongly_typed(trt: Any) -> bool:
    """Whether this version can be told to take types from the graph, or does nothing else."""
    typed = member(trt, "NetworkDefinitionCreationFlag", "STRONGLY_TYPED") is not None
    return typed or member(trt, "BuilderFlag", "FP16") is None


def _parse(trt: Any, network: Any, log: Any, graph: Path) -> None:
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reasons = [" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)]
        raise EngineOpenError(
            f"TensorRT {version_of(trt)} cannot parse {graph}: {'; '.join(reasons) or 'no reason'}"
        )


def _set_precision(trt: Any, network: Any, config: Any, request: PlanRequest) -> None:
    tf32 = member(trt, "BuilderFlag", "TF32")
    if tf32 is not None:
        config.clear_flag(tf32)  # on by default: ten bits where the graph says float32
    if strongly_typed(trt):
        return
    if request.half:
        config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    types = [_constrain(trt, network.get_layer(i)) for i in range(network.num_layers)]
    if request.half and "HALF" not in types:
        raise EngineOpenError(
            f"{request.graph} was asked for in half precision and has no layer in it; export the "
            "bundle again"
        )


def _constrain(trt: Any, layer: Any) -> str:
    """Holds a layer to the types of its tensors; the type it computes in, or empty."""
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


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    return profile


def _timing_cache(config: Any, path: Path | None) -> Any:
    """What was measured before, if this version and GPU take it, else an empty cache."""
    if path is None:
        return None
    known = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
