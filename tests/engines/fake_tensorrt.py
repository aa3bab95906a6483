"""A fake of the tensorrt package in several versions, whose engines are run by ONNX Runtime.

Each has what its version has and nothing else, so that code which asks for more fails here. The
names of 8.5 are checked against the real package where it is installed; the numbers are not the
real ones, on purpose.
"""

import ctypes
import json
from collections.abc import Callable
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt_builder import DTYPES, FakeBuilder, FakeParser

MEMBERS: dict[str, dict[str, tuple[str, ...]]] = {
    "8.5.3.1": {
        "NetworkDefinitionCreationFlag": ("EXPLICIT_PRECISION", "EXPLICIT_BATCH"),
        "BuilderFlag": ("INT8", "FP16", "TF32", "OBEY_PRECISION_CONSTRAINTS"),
        "TacticSource": ("EDGE_MASK_CONVOLUTIONS", "CUDNN", "CUBLAS", "CUBLAS_LT"),
        "PreviewFeature": (
            "FASTER_DYNAMIC_SHAPES_0805", "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805",
        ),
        "DataType": ("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"),
    },
    "10.3.0": {
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED", "EXPLICIT_BATCH"),
        "BuilderFlag": ("FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"),
        "TacticSource": ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS"),
        "PreviewFeature": ("PROFILE_SHARING_0806",),
        "ExecutionContextAllocationStrategy": ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"),
        "DataType": ("FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8", "BF16"),
    },
    "11.0.0": {
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
        "BuilderFlag": ("TF32", "REFIT", "STRICT_NANS"),
        "TacticSource": ("EDGE_MASK_CONVOLUTIONS",),
        "PreviewFeature": ("PROFILE_SHARING_0806",),
        "ExecutionContextAllocationStrategy": ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"),
        "DataType": ("FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8", "BF16"),
    },
}  # fmt: skip
RTX = "1.7.1.116"  # TensorRT for RTX: a package of its own, which builds without a GPU
MEMBERS_OF_RTX = MEMBERS["11.0.0"] | {
    "ComputeCapability": ("NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"),
}
SAME: dict[str, tuple[str, ...]] = {  # in every version
    "LayerType": ("CONSTANT", "SHAPE", "CONVOLUTION"),
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
    "MemoryPoolType": ("WORKSPACE",),
}
VERSIONS = tuple(MEMBERS)


class FakeTensorRT:
    """The module. Its engines run on `device`."""

    NetworkDefinitionCreationFlag: Any
    BuilderFlag: Any
    TacticSource: Any
    PreviewFeature: Any
    DataType: Any
    LayerType: Any
    TensorIOMode: Any
    MemoryPoolType: Any

    def __init__(self, version: str, device: FakeDevice, has_gpu: bool = True) -> None:
        self.__version__ = version
        self.is_rtx = version == RTX
        self.__name__ = "tensorrt_rtx_bindings" if self.is_rtx else "tensorrt"
        self.device, self.has_gpu = device, has_gpu
        self.built: list[SimpleNamespace] = []  # what every build was told
        self.deserialized = 0
        self.refuses = ""  # why builds fail, empty: they do not
        self.loggers: list[Any] = []  # what runtimes and builders were made with
        self.interrupted = False  # whether Ctrl-C ends a build
        self.runs_fail = False
        self.spoil: Callable[[str, NDArray[Any]], None] | None = None  # outputs, in place
        # What an engine or a context says of a tensor's shape, in place of the truth.
        self.says_shape: Callable[[str, tuple[int, ...]], tuple[int, ...]] | None = None
        self.ILogger = _ILogger
        for enum, names in (SAME | self._members()).items():
            kind: Any = Enum if enum in ("DataType", *SAME) else IntEnum
            setattr(self, enum, kind(enum, list(names), start=0))

    def _members(self) -> dict[str, tuple[str, ...]]:
        return MEMBERS_OF_RTX if self.is_rtx else MEMBERS[self.__version__]

    def Runtime(self, log: Any) -> Any:
        self._need_gpu(log)
        return SimpleNamespace(deserialize_cuda_engine=lambda data: self._engine(log, data))

    def Builder(self, log: Any) -> Any:
        if not self.is_rtx:
            self._need_gpu(log)
        return FakeBuilder(self, log)

    def OnnxParser(self, network: Any, log: Any) -> Any:
        return FakeParser(self, network)

    def _need_gpu(self, log: Any) -> None:
        self.loggers.append(log)
        if not self.has_gpu:
            log.log(SimpleNamespace(name="WARNING"), "CUDA initialization failure with error: 35")
            log.log(SimpleNamespace(name="ERROR"), "no GPU")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _engine(self, log: Any, data: bytes) -> Any:
        header, _, graph = data.partition(b"\n")
        try:
            about = json.loads(header)
        except ValueError:
            log.log(SimpleNamespace(name="ERROR"), "Magic tag does not\nmatch")
            return None
        own = "SM{}{}".format(*self.device.capability) if self.is_rtx else self.device.name
        if about["version"] != self.__version__ or own not in about["gpus"]:
            log.log(SimpleNamespace(name="ERROR"), "Version tag does not match")
            return None
        self.deserialized += 1
        return _Engine(self, about["sizes"], graph)


class _ILogger:
    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class _Engine:
    def __init__(self, trt: FakeTensorRT, sizes: list[int], graph: bytes) -> None:
        self._trt, self.sizes = trt, sizes
        model = onnx.load_from_string(graph).graph
        self._values = {v.name: v.type.tensor_type for v in [*model.input, *model.output]}
        self._inputs = {v.name for v in model.input}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.num_optimization_profiles = len(sizes)
        self.num_io_tensors = len(self._values)
        self.active_profiles: set[int] = set()  # before 10 a profile is one context's

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = "INPUT" if name in self._inputs else "OUTPUT"
        return self._trt.TensorIOMode[mode]

    def get_tensor_dtype(self, name: str) -> Any:
        kind = DTYPES[self._values[name].elem_type][0]
        return self._trt.DataType[kind]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.said(name, self._shape(name))

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        shape = (self.sizes[index], *self._shape(name)[1:])
        return [shape, shape, shape]

    def said(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._trt.says_shape(name, shape) if self._trt.says_shape else shape

    def shape_in(self, name: str, rows: int) -> tuple[int, ...]:
        return tuple(rows if extent < 0 else extent for extent in self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if d.dim_param else d.dim_value for d in self._values[name].shape.dim)

    def create_execution_context(self, strategy: Any = None) -> "_Context | None":
        late = strategy is not None and strategy.name == "ON_PROFILE_CHANGE"
        assert late != self._trt.__version__.startswith("8"), "memory of the largest profile"
        if self._trt.device.room <= 0 and not late:
            return None
        return _Context(self._trt, self)


class _Context:
    def __init__(self, trt: FakeTensorRT, engine: _Engine) -> None:
        self._trt, self._engine = trt, engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._runs = 0
        self._profile = -1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if self._trt.__version__.startswith("8"):
            assert index not in self._engine.active_profiles, "8.5 has one context per profile"
        self._engine.active_profiles.add(index)
        self._profile = index
        return self._trt.device.room > 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return shape[0] == self._engine.sizes[self._profile]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        rows = self._engine.sizes[self._profile]
        return self._engine.said(name, self._engine.shape_in(name, rows))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        device = self._trt.device
        assert stream != 0, "on the default stream"
        if device._recording.get(stream) is not None:
            assert self._runs, "captured before it ran once"
        self._runs += 1
        if self._trt.runs_fail:
            return False
        device.enqueue(stream, (self._run, tuple(self._addresses.values())))
        return True

    def _run(self) -> None:
        self._execute()  # looked up only now, for tests that put something else there

    def _execute(self) -> None:
        trt, engine = self._trt, self._engine
        feed = {}
        for name, shape in self._shapes.items():
            feed[name] = self._array(name, shape, np.float32).copy()
        names = [o.name for o in engine.session.get_outputs()]
        for name, array in zip(names, engine.session.run(names, feed), strict=True):
            result = np.array(array)
            if trt.spoil is not None:
                trt.spoil(name, result)
            self._array(name, result.shape, result.dtype)[...] = result

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self._trt.device.check_range(self._addresses[name], size)
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
