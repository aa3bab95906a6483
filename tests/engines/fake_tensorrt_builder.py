"""The half of the fake TensorRT that builds: it keeps what it is told, and a plan is the ONNX file
behind a line of what it was built for."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

DTYPES: dict[int, tuple[str, Any]] = {
    TensorProto.FLOAT: ("FLOAT", np.float32), TensorProto.FLOAT16: ("HALF", np.float16),
    TensorProto.INT32: ("INT32", np.int32), TensorProto.UINT8: ("UINT8", np.uint8),
}  # fmt: skip


class FakeBuilder:
    def __init__(self, trt: Any, log: Any) -> None:
        self._trt, self._log = trt, log

    def create_network(self, flags: int) -> Any:
        return SimpleNamespace(flags=flags, graph=b"", num_layers=0)

    def create_builder_config(self) -> "_Config":
        return _Config(self._trt)

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, *three: shapes.update({name: three})
        )

    def build_serialized_network(self, network: Any, config: "_Config") -> bytes | None:
        trt = self._trt
        flags = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", 0)
        if trt.__version__.startswith("8") and not network.flags >> int(flags) & 1:
            trt.refuses = "implicit batch cannot hold an ONNX graph"
        trt.built.append(SimpleNamespace(network=network, config=config))
        if trt.interrupted:
            raise KeyboardInterrupt
        if trt.refuses:
            self._log.log(SimpleNamespace(name="ERROR"), trt.refuses)
            return None
        sizes = [next(iter(profile.shapes.values()))[0][0] for profile in config.profiles]
        gpus = config.capabilities if trt.is_rtx else [trt.device.name]
        about = {"version": trt.__version__, "gpus": gpus, "sizes": sizes}
        return b"\n".join((json.dumps(about).encode(), network.graph))


class _Config:
    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self.flags = {"TF32"}
        self.profiles: list[Any] = []
        self.tactics = 0
        for source in trt.TacticSource:
            self.tactics |= 1 << int(source)
        self.previews: set[str] = set()
        self.timing: Any = None
        self.num_compute_capabilities = 0  # of TensorRT for RTX
        self.capabilities: list[str] = []
        if not trt.__version__.startswith("8.5"):
            self.builder_optimization_level = 3

    def set_flag(self, flag: Any) -> None:
        assert isinstance(flag, self._trt.BuilderFlag)
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        assert isinstance(capability, self._trt.ComputeCapability)
        assert index == len(self.capabilities) < self.num_compute_capabilities
        self.capabilities.append(capability.name)
        return True

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pool = (pool.name, size)

    def get_tactic_sources(self) -> int:
        return self.tactics

    def set_tactic_sources(self, sources: int) -> bool:
        self.tactics = sources
        return True

    def set_preview_feature(self, feature: Any, on: bool) -> None:
        self.previews.add(feature.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> Any:
        if data and not data.startswith(b"timings"):
            return None
        return SimpleNamespace(known=data, serialize=lambda: b"timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timing = cache
        return True


class FakeParser:
    def __init__(self, trt: Any, network: Any) -> None:
        self._trt, self._network = trt, network
        self.num_errors = 1

    def parse(self, content: bytes) -> bool:
        try:
            model = onnx.load_from_string(content)
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except Exception:
            return False
        if not model.graph.node:
            return False
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        types = {v.name: v.type.tensor_type.elem_type for v in values}
        types |= {v.name: v.data_type for v in inferred.initializer}
        layers = [_Layer(self._trt, node, types) for node in inferred.node]
        self._network.graph = content
        self._network.layers = layers
        self._network.num_layers = len(layers)
        self._network.get_layer = layers.__getitem__
        return True

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "no such\nmodel")


class _Layer:
    precision: Any = None

    def __init__(self, trt: Any, node: onnx.NodeProto, types: dict[str, int]) -> None:
        kind = trt.LayerType.SHAPE if node.op_type == "Shape" else trt.LayerType.CONVOLUTION
        self.name, self.type = node.name, kind
        self._inputs = [_tensor(trt, types.get(name, 0)) for name in node.input]
        self._outputs = [_tensor(trt, types.get(name, 0)) for name in node.output]
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)
        self.get_input, self.get_output = self._inputs.__getitem__, self._outputs.__getitem__
        self.output_types: dict[int, str] = {}

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.output_types[index] = dtype.name


def _tensor(trt: Any, kind: int) -> Any:
    names: dict[int, str] = {
        TensorProto.BOOL: "BOOL",
        TensorProto.INT64: "INT32",
    }  # as 8.5 reads them
    name = names.get(kind) or DTYPES.get(kind, ("FLOAT", None))[0]
    return SimpleNamespace(dtype=trt.DataType[name], is_shape_tensor=False)
