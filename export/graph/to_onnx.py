"""Labeller and mapping network -> ONNX files of opset 17 with a dynamic batch extent.

Graphs use only operators that TensorRT's ONNX parser takes; the table of operators and their types
is below. `half_by_float32` makes the export of float16 graphs fast on a CPU.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.graph.labeller import Labeller
from nets.mapping import MappingNetwork

OPSET = 17  # every TensorRT from 8.5 parses it
# Larger models have their weights in a second file, because a protobuf message ends at 2 GiB.
EXTERNAL_DATA_BYTES = 1 << 30


def labeller_onnx(labeller: Labeller, path: Path) -> None:
    """Writes `labeller` to `path`, with the inputs and outputs that `Labeller` describes."""
    synthesis = labeller.synthesis
    ws = torch.zeros(1, synthesis.num_ws, synthesis.w_dim)
    inputs = {"ws": ws, **labeller.filter_inputs}
    write_onnx(labeller, inputs, labeller.output_extents, path)


def mapping_onnx(mapping: MappingNetwork, path: Path) -> None:
    """Writes `mapping` to `path`.

    Inputs: z [N, z_dim], and c one-hot [N, c_dim] if conditional. Output: untruncated w [N, w_dim].
    """
    config = mapping.config
    inputs = {"z": torch.zeros(1, config.z_dim)}
    if config.c_dim > 0:
        inputs["c"] = torch.zeros(1, config.c_dim)
    write_onnx(mapping, inputs, {"w": (config.w_dim,)}, path)


def write_onnx(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Mapping[str, tuple[int, ...] | None],  # shape without N by name; None: a scalar
    path: Path,
) -> None:
    """Traces `module` on `inputs` and writes the checked graph to `path`.

    Raises RuntimeError for an operator that some TensorRT from 8.5 may not parse.
    """
    model = _traced(module, inputs, outputs)
    for value, extents in zip(model.graph.output, outputs.values(), strict=True):
        dims = value.type.tensor_type.shape.dim
        for dim, extent in zip(dims[1:], extents or (), strict=True):
            dim.dim_value = extent  # tracing leaves some extents unknown
    _constants_to_initializers(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise RuntimeError(f"the exported graph uses opsets {opsets}; expected only {OPSET}")
    foreign = {node.op_type for node in model.graph.node} - OPERATORS
    if foreign:
        raise RuntimeError(
            f"the exported graph uses {sorted(foreign)}, which are not known to be parsed by "
            "every TensorRT from 8.5; see export/graph/to_onnx.py"
        )
    large = model.ByteSize() > EXTERNAL_DATA_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")
    onnx.checker.check_model(path, full_check=True)


def _traced(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Mapping[str, tuple[int, ...] | None]
) -> onnx.ModelProto:
    """The graph as torch's tracing exporter writes it.

    The newer exporter (dynamo) takes five to ten times as long for graphs of thousands of nodes,
    which members times strips are, and writes opset 18 even if opset_version is 17.
    """
    batched = [*inputs, *(name for name, extents in outputs.items() if extents is not None)]
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        # It warns of instance norm that always uses statistics of its input, as ours does.
        warnings.filterwarnings("ignore", "ONNX export mode .* operator 'instance_norm'")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]  # accepted, but missing in the annotation
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={name: {0: "N"} for name in batched},
        )
    return onnx.load_from_string(buffer.getvalue())


def _constants_to_initializers(model: onnx.ModelProto) -> None:
    """Replaces Constant nodes by initializers, one per distinct value, and drops Identity nodes.

    Tracing writes one Constant node per use. Without them a session loads in half the time.
    """
    graph = model.graph
    known: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in {o.name for o in graph.output}:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Constant":
            value = node.attribute[0].t
            value.name = ""
            key = value.SerializeToString()
            renamed[node.output[0]] = known.setdefault(key, node.output[0])
            if known[key] == node.output[0]:
                value.name = node.output[0]
                graph.initializer.append(value)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


# Operators that our graphs may have: (types that TensorRT 8.5 parses, types that 10.1 parses).
_PARSED_TYPES = {
    "Abs": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Add": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "ArgMax": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "AveragePool": ("FP32 FP16 INT32", "FP32 FP16"),
    "Cast": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL UINT8"),
    "Clip": ("FP32 FP16", "FP32 FP16"),
    "Concat": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Conv": ("FP32 FP16", "FP32 FP16"),
    "ConvTranspose": ("FP32 FP16", "FP32 FP16"),
    "Div": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Equal": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Exp": ("FP32 FP16", "FP32 FP16"),
    "Floor": ("FP32 FP16", "FP32 FP16"),
    "Gather": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Gemm": ("FP32 FP16", "FP32 FP16"),
    "Greater": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "GreaterOrEqual": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "InstanceNormalization": ("FP32 FP16", "FP32 FP16"),
    "LeakyRelu": ("FP32 FP16", "FP32 FP16"),
    "Less": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "LessOrEqual": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "MatMul": ("FP32 FP16", "FP32 FP16"),
    "Min": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Mul": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Range": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Reciprocal": ("FP32 FP16", "FP32 FP16"),
    "ReduceLogSum": ("FP32 FP16", "FP32 FP16"),
    "ReduceMax": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceMean": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceMin": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceSum": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "Relu": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "Reshape": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Resize": ("FP32 FP16", "FP32 FP16"),
    "Shape": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Sin": ("FP32 FP16", "FP32 FP16"),
    "Slice": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Softmax": ("FP32 FP16", "FP32 FP16"),
    "Split": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Sqrt": ("FP32 FP16", "FP32 FP16"),
    "Squeeze": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Sub": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Tanh": ("FP32 FP16", "FP32 FP16"),
    "Transpose": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Unsqueeze": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Where": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
}

OPERATORS = frozenset(_PARSED_TYPES)
TYPES_8_5 = {name: frozenset(types.split()) for name, (types, _) in _PARSED_TYPES.items()}
TYPES_10 = {name: frozenset(types.split()) for name, (_, types) in _PARSED_TYPES.items()}

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
CONVOLUTIONS = ("_slow_conv2d_forward", "slow_conv_transpose2d")


@contextmanager
def half_by_float32() -> Iterator[None]:
    """Within the block, float16 convolutions and matrix products on the CPU compute in float32.

    Their results are rounded to float16. The exporter runs the module that it traces, and torch's
    float16 kernels on a CPU take about a hundred times as long as those for float32. The traced
    graph is the same.
    """
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of overriding, which is intended
        for name in (*PRODUCTS, *CONVOLUTIONS):
            operator = getattr(torch.ops.aten, name).default
            kernel = torch.library.get_kernel(operator, "CPU")
            library.impl(
                name, _computing_in_float32(kernel), "CPU", with_keyset=True, allow_override=True
            )
    try:
        yield
    finally:
        library._destroy()


def _computing_in_float32(kernel: Any) -> Callable[..., Any]:
    """An implementation of the operator that widens float16 arguments and narrows the result."""

    def run(keyset: Any, *arguments: Any, **named: Any) -> Any:
        if not any(map(_is_half, arguments)):
            return kernel.call_boxed(keyset, *arguments, **named)
        widened = [value.float() if _is_half(value) else value for value in arguments]
        return kernel.call_boxed(keyset, *widened, **named).half()

    return run


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float16
