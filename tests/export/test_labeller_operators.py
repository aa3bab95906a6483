"""Exported files have only operators that every TensorRT from 8.5 parses."""

from pathlib import Path

import onnx
import pytest

from export.graph.labeller import Labeller
from export.graph.spec import LabelSpec
from export.graph.to_onnx import OPERATORS, labeller_onnx
from tests.export.networks import random_generator, random_interpreter


@pytest.fixture(scope="module", params=["float32", "float16"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    generator = random_generator(32)
    interpreter = random_interpreter(2 * sum(generator.config.channels))
    spec = LabelSpec(16, 2, 9, 16, "segmentation")
    path: Path = tmp_path_factory.mktemp("graph") / "labeller.onnx"
    labeller_onnx(Labeller(generator, interpreter, spec, request.param), path)
    return onnx.load(path)


def test_only_operators_of_the_list_are_used(model: onnx.ModelProto) -> None:
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert not OPERATORS & {"TopK", "NonZero", "Loop", "Scan", "If", "OneHot", "EyeLike"}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_bytes_appear_only_in_a_last_cast(model: onnx.ModelProto) -> None:
    outputs = {o.name for o in model.graph.output}
    to_bytes = [
        node
        for node in model.graph.node
        if node.op_type == "Cast"
        and any(a.name == "to" and a.i == onnx.TensorProto.UINT8 for a in node.attribute)
    ]
    assert {node.output[0] for node in to_bytes} == {"image", "mask"}
    assert {"image", "mask"} <= outputs


def test_weights_of_convolutions_are_constants(model: onnx.ModelProto) -> None:
    constants = {i.name for i in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert convolutions
    assert all(node.input[1] in constants for node in convolutions)


def test_only_the_batch_extent_is_open(model: onnx.ModelProto) -> None:
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name != "kept":
            assert dims[0].dim_param == "N", value.name
        assert all(dim.dim_value > 0 for dim in dims[1:]), value.name
