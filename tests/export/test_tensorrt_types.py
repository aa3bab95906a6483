"""Every operand in every graph has a type that TensorRT 8.5 and 10 accept for its operator."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from export.graph.labeller import Labeller, Precision
from export.graph.refiner import RefinerStage
from export.graph.spec import LabelSpec
from export.graph.to_onnx import OPERATORS, OPSET, TYPES_8_5, TYPES_10, labeller_onnx, mapping_onnx
from nets import stylegan1
from nets.config import GeneratorConfig
from nets.refiner import Refiner, RefinerConfig
from tests.export.networks import random_generator, random_interpreter, random_stylegan3

NAMES: dict[int, str] = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64", TensorProto.BOOL: "BOOL", TensorProto.UINT8: "UINT8",
}  # fmt: skip
# Inputs that are sizes, axes or positions and not what the table's types are about.
NOT_DATA = {
    "Reshape": {1}, "Slice": {1, 2, 3, 4}, "Unsqueeze": {1}, "Squeeze": {1}, "Split": {1},
    "ReduceSum": {1}, "Gather": {1}, "Resize": {1, 2, 3}, "Where": {0},
}  # fmt: skip


def labelled(resolution: int, precision: Precision, path: Path) -> None:
    """A graph with all heads, a crop, and a label grid smaller than the image."""
    generator = random_generator(resolution)
    interpreter = random_interpreter(2 * sum(generator.config.channels))
    spec = LabelSpec(16, 2, 9, 16, "segmentation")
    labeller_onnx(Labeller(generator, interpreter, spec, precision), path)


def images_of_stylegan1(precision: Precision, path: Path) -> None:
    """A StyleGAN1 of 128 px, where doubling is one transposed convolution."""
    torch.manual_seed(0)
    channels = (8, 8, 8, 6, 6, 4)
    config = GeneratorConfig(
        128, channels, z_dim=8, w_dim=8, mapping_layers=2, family="stylegan1"
    )  # fmt: skip
    generator = stylegan1.Generator(config).eval()
    labeller_onnx(Labeller(generator, None, LabelSpec(128, 0, 128, 128), precision), path)


def labels_of_stylegan1(path: Path) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        32, (8, 8, 6, 4), z_dim=8, w_dim=8, mapping_layers=2, family="stylegan1"
    )  # fmt: skip
    generator = stylegan1.Generator(config).eval()
    interpreter = random_interpreter(2 * sum(config.channels))
    spec = LabelSpec(32, 4, 24, 32, "segmentation", tap_recipe="dg-pair", resize="nearest")
    labeller_onnx(Labeller(generator, interpreter, spec, "float16"), path)


def labels_of_stylegan3(precision: Precision, path: Path) -> None:
    """Configuration R: its radial filters are not separable."""
    generator = random_stylegan3(32, rotation=True)
    interpreter = random_interpreter(generator.config.features)
    spec = LabelSpec(32, 4, 24, 32, "segmentation", tap_recipe="stylegan3")
    labeller_onnx(Labeller(generator, interpreter, spec, precision), path)


def images_of_stylegan3(path: Path) -> None:
    generator = random_stylegan3(32)
    labeller_onnx(Labeller(generator, None, LabelSpec(32, 0, 32, 32), "float16"), path)


def refined_images(precision: Precision, path: Path) -> None:
    """A graph with a refiner that reads grain."""
    generator = random_generator(16)
    network = Refiner(RefinerConfig(width=4, blocks=1, grain=2))
    dtype = torch.float32 if precision == "float32" else torch.float16
    stage = RefinerStage(network, 0, generator.mapping.w_avg, 16, 16, dtype)
    spec = LabelSpec(16, 0, 16, 16)
    labeller_onnx(Labeller(generator, None, spec, precision, refine=stage), path)


GRAPHS: dict[str, Callable[[Path], None]] = {
    "labels": lambda path: labelled(32, "float32", path),
    "labels in half precision": lambda path: labelled(32, "float16", path),
    "images of a StyleGAN1": lambda path: images_of_stylegan1("float32", path),
    "images of a StyleGAN1 in half precision": lambda path: images_of_stylegan1("float16", path),
    "refined images": lambda path: refined_images("float32", path),
    "refined images in half precision": lambda path: refined_images("float16", path),
    "labels of a StyleGAN1": labels_of_stylegan1,
    "labels of a StyleGAN3": lambda path: labels_of_stylegan3("float32", path),
    "labels of a StyleGAN3 in half precision": lambda path: labels_of_stylegan3("float16", path),
    "images of a StyleGAN3 in half precision": images_of_stylegan3,
    "a mapping": lambda path: mapping_onnx(random_generator(8).mapping, path),
}


QUICK = (
    "labels in half precision", "refined images in half precision",
    "labels of a StyleGAN3 in half precision", "a mapping",
)  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in GRAPHS],
)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    path: Path = tmp_path_factory.mktemp("graph") / "graph.onnx"
    GRAPHS[request.param](path)
    return onnx.load(path)


def types_of(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every tensor by name."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: NAMES[value.type.tensor_type.elem_type] for value in values}
    return types | {value.name: NAMES[value.data_type] for value in graph.initializer}


def test_the_opset_is_the_last_that_every_version_parses(model: onnx.ModelProto) -> None:
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)] == [("", 17)]


def test_every_operator_is_one_that_both_versions_parse(model: onnx.ModelProto) -> None:
    assert {node.op_type for node in model.graph.node} <= OPERATORS


def test_every_operand_has_a_type_that_both_versions_take(model: onnx.ModelProto) -> None:
    types = types_of(model)
    for node in model.graph.node:
        data = [
            types[name]
            for i, name in enumerate(node.input)
            if name and i not in NOT_DATA.get(node.op_type, set())
        ]
        narrowed = {"INT32" if kind == "INT64" else kind for kind in data}  # as 8.5 does
        assert set(data) <= TYPES_10[node.op_type], (node.op_type, node.name)
        assert narrowed <= TYPES_8_5[node.op_type], (node.op_type, node.name)
        if node.op_type != "Where":
            assert len(set(data)) == 1, f"{node.name} mixes {data}: strong typing refuses that"


def test_bytes_are_the_result_of_a_last_cast_and_nothing_else(model: onnx.ModelProto) -> None:
    types, outputs = types_of(model), {value.name for value in model.graph.output}
    for node in model.graph.node:
        assert all(types[name] != "UINT8" for name in node.input if name)
        for name in node.output:
            if types[name] == "UINT8":
                assert node.op_type == "Cast" and name in outputs
                assert types[node.input[0]] in ("FP32", "FP16")


def test_wide_integers_stay_within_the_graph_and_fit_32_bits(model: onnx.ModelProto) -> None:
    types = types_of(model)
    assert all(types[v.name] != "INT64" for v in [*model.graph.input, *model.graph.output])
    open_end = np.iinfo(np.int64).max  # of a slice: 8.5 reads it as its own largest
    for value in model.graph.initializer:
        if value.data_type == TensorProto.INT64:
            array = numpy_helper.to_array(value)
            narrow = np.abs(array[array != open_end]) <= np.iinfo(np.int32).max
            assert narrow.all(), value.name


def test_statistics_are_constants_where_the_parser_wants_them(model: onnx.ModelProto) -> None:
    """`axes` of reductions, slices and (un)squeezes, and instance norm's scale and bias."""
    constants = {value.name for value in model.graph.initializer}
    wanted = {
        "ReduceSum": (1,), "Slice": (3,), "Unsqueeze": (1,), "Squeeze": (1,),
        "InstanceNormalization": (1, 2), "Conv": (1,), "ConvTranspose": (1,),
    }  # fmt: skip
    for node in model.graph.node:
        for i in wanted.get(node.op_type, ()):
            if len(node.input) > i and node.input[i]:
                assert node.input[i] in constants, (node.op_type, node.name)
