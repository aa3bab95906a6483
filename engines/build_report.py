"""A detailed build of a TensorRT plan -> the plan, and what the builder logs about the engine.

The builder of TensorRT for RTX describes every kernel of the engine in its log. An engine's own
inspector says the same, but needs a GPU: without one no plan can be deserialized.
"""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from engines import tensorrt_module
from engines.errors import EngineOpenError
from engines.tensorrt_build import PlanRequest, plan_from_graph

FLOAT_TYPES = ("Float", "Half", "BFloat16", "FP8")  # as the log writes them
_PARSED = re.compile(r"Original: (\d+) layers")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_LAYER = re.compile(r"(?:^|\s)Name: (?=[^{}]+?, LayerType: )")  # the start of each layer
_OPERAND = re.compile(r"Name: (.*?), Dimensions: \[([\d,-]*)\].*?, Datatype: (\w+)")
_OPERATOR = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_COMPILED = re.compile(r"_myl(\d+)_\d+$")  # number of the compiled graph in a layer's name
_TENSOR = re.compile(r"Name: (\S+), IOMode: (\w+), DataType: (\w+), Dimensions: \[([\d,-]*)\]")


@dataclass(frozen=True)
class Operand:
    """An array that a layer reads or writes."""

    name: str
    extents: tuple[int, ...]
    dtype: str  # "Float", "Half", "Int32", ...

    @property
    def is_matrix(self) -> bool:
        """Whether at least two of its extents are over 1."""
        return sum(extent > 1 for extent in self.extents) > 1


@dataclass(frozen=True)
class FusedLayer:
    """One kernel of the engine."""

    name: str
    kind: str  # "gemm", "kgen" (generated code), ...
    compiled: int  # number of the compiled graph; there is one for each batch size
    inputs: tuple[Operand, ...]
    constants: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    operators: tuple[str, ...]  # ONNX nodes that it computes, such as "/labels/MatMul_3"

    @property
    def precision(self) -> str:
        """The float types that it reads and writes, scalars left out: "Half", "Float+Half", ..."""
        operands = (*self.inputs, *self.constants, *self.outputs)
        types = {x.dtype for x in operands if math.prod(x.extents) > 1}
        return "+".join(sorted(types & set(FLOAT_TYPES))) or "none"


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of the engine; extents of outputs are those of the first batch size."""

    mode: str  # "Input", "Output"
    dtype: str
    extents: tuple[int, ...]


@dataclass(frozen=True)
class BuildReport:
    """What the log says about the engine."""

    parsed_layers: int  # of the network, before fusion
    layers: tuple[FusedLayer, ...]
    tensors: dict[str, EngineTensor]
    weights_bytes: int
    activation_bytes: tuple[int, ...]  # working memory for each batch size, in their order

    def layers_of(self, compiled: int = 0) -> tuple[FusedLayer, ...]:
        """Layers for one batch size."""
        return tuple(layer for layer in self.layers if layer.compiled == compiled)


def plan_and_report(trt: Any, request: PlanRequest) -> tuple[bytes, BuildReport]:
    """Builds as `plan_from_graph`. Raises EngineOpenError, also for a log without a description."""
    with _log_lines() as lines:
        plan = plan_from_graph(trt, replace(request, detailed=True))
    return plan, report_from_log(lines)


def report_from_log(lines: list[str]) -> BuildReport:
    """The messages of one detailed build, severity left out. Raises EngineOpenError."""
    text = "\n".join(lines)
    parsed, weights = _PARSED.search(text), _WEIGHTS.search(text)
    described = next((line for line in lines if line.startswith("Layers:")), "")
    layers, _, tensors = described.partition("I/O Tensors:")
    found = {
        name: EngineTensor(mode, dtype, _extents(extents))
        for name, mode, dtype, extents in _TENSOR.findall(tensors)
    }
    if parsed is None or weights is None or not found:
        raise EngineOpenError(
            "the builder's log has no description of the engine; --report needs the log of "
            "TensorRT for RTX 1.7"
        )
    return BuildReport(
        parsed_layers=int(parsed[1]),
        layers=tuple(map(_layer, _LAYER.split(layers)[1:])),
        tensors=found,
        weights_bytes=int(weights[1]),
        activation_bytes=tuple(map(int, _ACTIVATIONS.findall(text))),
    )


def _layer(text: str) -> FusedLayer:
    """ "relu_myl0_3, LayerType: kgen, Inputs: [...], Constants: [...], Outputs: [...], ..." """
    name, _, rest = text.partition(", LayerType: ")
    kind, _, rest = rest.partition(", Inputs: ")
    inputs, _, rest = rest.partition(", Constants: ")
    constants, _, rest = rest.partition(", Outputs: ")
    outputs, _, rest = rest.partition(", TacticName: ")
    compiled = _COMPILED.search(name)
    return FusedLayer(
        name=name,
        kind=kind,
        compiled=int(compiled[1]) if compiled else 0,
        inputs=_operands(inputs),
        constants=_operands(constants),
        outputs=_operands(outputs),
        operators=tuple(_OPERATOR.findall(rest)),
    )


def _operands(text: str) -> tuple[Operand, ...]:
    return tuple(
        Operand(name, _extents(extents), dtype) for name, extents, dtype in _OPERAND.findall(text)
    )


def _extents(text: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, text.split(","))))


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """All lines that TensorRT logs within the block; those below the logger's level are kept from
    its handlers."""
    logger, lines = logging.getLogger(tensorrt_module.__name__), list[str]()
    own, effective = logger.level, logger.getEffectiveLevel()

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage().removeprefix("TensorRT: "))
        return record.levelno >= effective

    logger.addFilter(keep)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.setLevel(own)
        logger.removeFilter(keep)
