"""Exported files have only operators that every TensorRT from 8.5 parses, and stay right when a
compiler rewrites them as TensorRT does."""

import io
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from export.graph.ensemble import Consensus, mean_and_variance
from export.graph.filter import top_mean
from export.graph.labeller import Labeller, Precision
from export.graph.spec import LabelSpec
from export.graph.to_onnx import OPERATORS, OPSET, labeller_onnx
from nets.labels import Measure
from tests.export.networks import random_generator, random_interpreter
from tests.export.reference import MEASURES

GRAPHS: list[tuple[Precision, Measure]] = [
    ("float32", "jensen_shannon"),
    ("float16", "jensen_shannon"),
    ("float16", "entropy"),
    ("float16", "least_confidence"),
]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id="-".join(each), marks=pytest.mark.long if i > 1 else ())
        for i, each in enumerate(GRAPHS)
    ],
)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    generator = random_generator(32)
    interpreter = random_interpreter(2 * sum(generator.config.channels))
    precision, measure = request.param
    spec = LabelSpec(16, 2, 9, 16, "segmentation", score_measure=measure)
    path: Path = tmp_path_factory.mktemp("graph") / "labeller.onnx"
    labeller_onnx(Labeller(generator, interpreter, spec, precision), path)
    return onnx.load(path)


def test_only_operators_of_the_list_are_used(model: onnx.ModelProto) -> None:
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert not OPERATORS & {
        "TopK",
        "NonZero",
        "Loop",
        "Scan",
        "If",
        "OneHot",
        "EyeLike",
        "Log",  # in place of which is ReduceLogSum, see export/graph/ensemble.py
        "LogSoftmax",
    }
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


def test_no_up_convolution_pays_for_its_low_pass(model: onnx.ModelProto) -> None:
    """With the low-pass folded in, a 3x3 kernel is a 6x6 kernel and four times the work."""
    shapes = {i.name: tuple(i.dims) for i in model.graph.initializer}
    kernels = [shapes[n.input[1]] for n in model.graph.node if n.op_type == "ConvTranspose"]
    dense = [kernel for kernel in kernels if kernel[1] > 1]  # the others double images by channel
    assert len(dense) == 3 and {kernel[2:] for kernel in dense} == {(3, 3)}


def test_only_the_batch_extent_is_open(model: onnx.ModelProto) -> None:
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name != "kept":
            assert dims[0].dim_param == "N", value.name
        assert all(dim.dim_value > 0 for dim in dims[1:]), value.name


class Scores(nn.Module):
    """Pixel maps of two members [N, P] -> scores [N] of the first, of its variance, of both's."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        alone = mean_and_variance([x[:, :, None]])[1]
        both = mean_and_variance([x[:, :, None], y[:, :, None]])[1]
        return top_mean(x, 7), top_mean(alone, 7), top_mean(both, 7)


class OldScore(nn.Module):
    """A score whose NaN depends on total * 0."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        total = x.sum(dim=1)
        return (torch.relu(total) * 1e-38 + total * 0 + (y - y).sum(dim=1),)


class Uncertainty(nn.Module):
    """Logits of the members [M, P, C] -> uncertainty [P]."""

    def __init__(self, measure: Measure) -> None:
        super().__init__()
        self.measure: Measure = measure

    def forward(self, logits: Tensor) -> Tensor:
        uncertainty = Consensus(logits.shape[2], self.measure)(logits[:, None], True)[1]
        assert isinstance(uncertainty, Tensor)
        return uncertainty[0]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_samples_uncertainty_does_not_depend_on_its_place_in_the_batch(measure: Measure) -> None:
    """ONNX Runtime computes Log by other instructions at the borders between its threads' parts,
    which differ in the last bit."""
    samples, pixels = 7, 1072  # which parts of four threads do not divide evenly
    logits = torch.randn(3, samples * pixels, 5, generator=torch.Generator().manual_seed(0))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 4
    program = traced(Uncertainty(measure), logits).SerializeToString()
    session = ort.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    (first,) = session.run(None, {"in0": logits.numpy()})
    for by in range(pixels, samples * pixels, pixels):
        (moved,) = session.run(None, {"in0": logits.roll(by, dims=1).numpy()})
        assert np.array_equal(np.roll(moved, -by), first), by


class OldEntropy(nn.Module):
    """The members' negative entropy by log_softmax."""

    def forward(self, logits: Tensor) -> Tensor:
        terms: Tensor = logits.softmax(dim=-1) * logits.log_softmax(dim=-1)
        return terms.sum(dim=-1)


def traced(module: nn.Module, *inputs: Tensor) -> onnx.ModelProto:
    program = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            program,  # type: ignore[arg-type]  # accepted, but missing in the annotation
            opset_version=OPSET,
            dynamo=False,
            input_names=[f"in{i}" for i in range(len(inputs))],
        )
    return onnx.load_from_string(program.getvalue())


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Initializers and constant nodes by name."""
    found = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def foldable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products with zero, and differences and quotients of a value and itself: finite inputs
    decide their results, so that a compiler without strict NaNs may replace them."""
    zeros = {name for name, value in constants(model).items() if not np.any(value)}
    return [
        node
        for node in model.graph.node
        if (node.op_type == "Mul" and zeros & set(node.input))
        or (node.op_type in ("Sub", "Div") and node.input[0] == node.input[1])
    ]


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with those products and differences replaced by 0, as TensorRT does unless
    BuilderFlag.STRICT_NANS is set. The 0 has the shape of the value: x < x is false for NaN too."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = constants(result)
    for node in foldable(result):
        value = next(name for name in node.input if name not in known)
        less = helper.make_node("Less", [value, value], [f"{node.output[0]}_less"])
        node.CopyFrom(helper.make_node("Cast", less.output, node.output, to=onnx.TensorProto.FLOAT))
        result.graph.node.insert(list(result.graph.node).index(node), less)
    return result


# What maxima and minima see in place of a NaN, in a runtime that passes the other number on.
LARGE = 3e38
WITHOUT_NAN = {"ReduceMax": -LARGE, "Relu": 0.0, "Min": LARGE, "Clip": 0.0}


def without_nan_in_extrema(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as a GPU runs it, whose max and min return the operand that is not NaN."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in [node for node in result.graph.node if node.op_type in WITHOUT_NAN]:
        at = list(result.graph.node).index(node)
        for i, name in enumerate(list(node.input) if node.op_type == "Min" else [node.input[0]]):
            clean = f"{node.output[0]}_clean{i}"
            value = np.array(WITHOUT_NAN[node.op_type], np.float32)
            result.graph.initializer.append(numpy_helper.from_array(value, f"{clean}_value"))
            is_nan = helper.make_node("IsNaN", [name], [f"{clean}_at"])
            where = helper.make_node("Where", [f"{clean}_at", f"{clean}_value", name], [clean])
            node.input[i] = clean
            result.graph.node.insert(at, where)
            result.graph.node.insert(at, is_nan)
    return result


def with_log_of_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every LogSoftmax as Log(Softmax), as TensorRT's parser imports it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for at, node in reversed(list(enumerate(result.graph.node))):
        if node.op_type == "LogSoftmax":
            node.op_type = "Softmax"
            log = helper.make_node("Log", [f"{node.output[0]}_p"], [node.output[0]])
            node.output[0] = log.input[0]
            result.graph.node.insert(at + 1, log)
    return result


def run(model: onnx.ModelProto, *inputs: Tensor) -> list[NDArray[np.float32]]:
    """Outputs by ONNX Runtime, without its own rewriting of the graph."""
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[NDArray[np.float32]] = session.run(
        None, {f"in{i}": x.numpy() for i, x in enumerate(inputs)}
    )
    return outputs


def maps_with(bad: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = torch.rand(3, 50), torch.rand(3, 50)
    x[1, 31] = bad
    return x, y


@pytest.mark.parametrize(
    "bad", [math.nan, *(pytest.param(bad, marks=pytest.mark.long) for bad in (math.inf, -math.inf))]
)
def test_no_folding_hides_a_pixel_that_is_not_finite(bad: float) -> None:
    x, y = maps_with(bad)
    model = traced(Scores(), x, y)
    for rewritten in (model, folded(model), without_nan_in_extrema(folded(model))):
        for scores in run(rewritten, x, y):
            assert np.isfinite(scores).tolist() == [True, False, True]


def test_the_folding_of_these_tests_hides_a_nan_of_a_product_with_zero() -> None:
    x, y = maps_with(float("nan"))
    model = traced(OldScore(), x, y)
    assert len(foldable(model)) == 2
    as_on_a_gpu = without_nan_in_extrema(model)
    assert np.isfinite(run(as_on_a_gpu, x, y)[0]).tolist() == [True, False, True]
    assert np.isfinite(run(folded(as_on_a_gpu), x, y)[0]).all()


def test_nothing_in_a_graph_can_be_folded_away(model: onnx.ModelProto) -> None:
    assert not [node.name for node in foldable(model)]


@pytest.mark.parametrize("measure", MEASURES)
def test_no_folding_hides_a_logit_that_is_no_number(measure: Measure) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 20, 5)
    model = traced(Uncertainty(measure), logits)
    logits[1, 7, 2] = torch.nan
    for rewritten in (model, folded(model), without_nan_in_extrema(folded(model))):
        (found,) = run(rewritten, logits)
        assert np.flatnonzero(~np.isfinite(found)).tolist() == [7]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("gap", [0, 88, 200, 1e4])
def test_the_uncertainty_does_not_depend_on_how_log_softmax_is_parsed(
    gap: float, measure: Measure
) -> None:
    torch.manual_seed(0)
    best = torch.randint(6, (5, 200))
    logits = nn.functional.one_hot(best, 6) * gap + torch.randn(5, 200, 6)
    model = traced(Uncertainty(measure), logits)
    assert not {"LogSoftmax"} & {node.op_type for node in model.graph.node}
    expected = MEASURES[measure](logits.double()).numpy()
    found = run(with_log_of_softmax(model), logits)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)
    old = run(with_log_of_softmax(traced(OldEntropy(), logits)), logits)[0]
    if gap >= 200:  # at 88 a CPU still has denormal numbers
        assert np.isnan(old).any(), "this parsing spoils the old form"
