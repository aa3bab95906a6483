"""Handmade graphs of a few operators, so that engines are tested without export."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, open_bundle
from bundle.read import bundle_id_from_content
from bundle.write import file_entries, write_manifest
from engines.fake import fake_bundle
from tests.engines.device_bench import KINDS, Bench
from tests.engines.fake_tensorrt import VERSIONS

NUM_WS, W_DIM, SIZE = 6, 16, 16  # of fake_bundle(16)
COLUMNS = 15  # of its content: the score, 4 classes twice, 3 keypoints, 3 quantiles of depth
Table = dict[str, tuple[int, list[Any]]]  # name -> element type, extents


class Graphs:
    """What the labeller of a handmade bundle does; change it before `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_classes = 0
        self.heads = True
        self.boxes = 0  # alternatives of a predicate; over 0, the graph counts the content
        self.sample_offset = 0  # added to the row numbers it reports
        self.kept_offset = 0  # added to the number of kept rows it reports
        self.rows_gain = 0  # times the number of rows it was run with, added to all values
        self.drop_output = ""
        self.add_output = False
        self.mask_type = TensorProto.UINT8
        self.mask_width = SIZE

    def write(self) -> Bundle:
        """A bundle whose score is ws[0, 0] and whose image, mask and so on are ws[0, 1]."""
        self.folder.mkdir(exist_ok=True)
        onnx.save(self._labeller(), self.folder / "labeller.onnx")
        onnx.save(self._mapping(), self.folder / "mapping.onnx")
        return self.listed()

    def listed(self) -> Bundle:
        """The bundle with a manifest of the files as they are now."""
        fake = fake_bundle(SIZE, self.num_classes, self.heads, boxes=self.boxes).manifest
        files = file_entries(self.folder)
        files.pop("manifest.json", None)
        bundle_id = bundle_id_from_content(fake.generator, fake.labels, fake.heads, files)
        write_manifest(self.folder, msgspec.structs.replace(fake, files=files, bundle_id=bundle_id))
        return open_bundle(self.folder)

    def _labeller(self) -> onnx.ModelProto:
        node = helper.make_node
        nodes = [
            node("Gather", ["row0", "zero"], ["score_in"], axis=1),
            node("Gather", ["row0", "one"], ["value_in"], axis=1),
            node("LessOrEqual", ["score_in", "max_uncertainty"], ["keep_all"]),
            node("Cast", ["keep_all"], ["keep_f"], to=TensorProto.FLOAT),
            node("Mul", ["keep_f", "within" if self.boxes else "one_f"], ["keep"]),
            node("Shape", ["ws"], ["shape"]),
            node("Gather", ["shape", "zero"], ["n"]),
            node("Range", ["zero", "n", "one"], ["ramp"]),
            node("Cast", ["ramp"], ["ramp_f"], to=TensorProto.FLOAT),
            node("Mul", ["keep", "large"], ["lift"]),
            node("Sub", ["ramp_f", "lift"], ["key"]),
            node("Reshape", ["n", "one_axis"], ["k"]),
            node("TopK", ["key", "k"], ["_", "order"], largest=0, sorted=1),
            node("ReduceSum", ["keep"], ["count"], keepdims=0),
            node("Add", ["count", "kept_offset"], ["count2"]),
            node("Cast", ["count2"], ["kept"], to=TensorProto.INT32),
            node("Cast", ["order"], ["order_i"], to=TensorProto.INT32),
            node("Add", ["order_i", "sample_offset"], ["sample"]),
            node("Cast", ["n"], ["n_f"], to=TensorProto.FLOAT),
            node("Mul", ["n_f", "rows_gain"], ["extra"]),
            node("Add", ["value_in", "extra"], ["value_all"]),
            node("Gather", ["value_all", "order"], ["value"]),
        ]
        if self.heads:
            nodes.append(node("Gather", ["score_in", "order"], ["uncertainty"]))
        inputs: Table = {
            "ws": (TensorProto.FLOAT, ["N", NUM_WS, W_DIM]),
            "max_uncertainty": (TensorProto.FLOAT, ["N"]),
        }
        if self.boxes:
            nodes[2:2] = self._predicate()
            nodes.append(node("Gather", ["content_in", "order"], ["content"]))
            inputs["boxes"] = (TensorProto.FLOAT, ["N", self.boxes, 2, COLUMNS])
        nodes.insert(0, node("Gather", ["ws", "zero"], ["row0"], axis=1))
        outputs: Table = {"sample": (TensorProto.INT32, ["N"]), "kept": (TensorProto.INT32, [])}
        arrays = {"image": (TensorProto.UINT8, [SIZE, SIZE, 3])}
        if self.boxes:
            outputs["content"] = (TensorProto.FLOAT, ["N", COLUMNS])
        if self.heads:
            outputs["uncertainty"] = (TensorProto.FLOAT, ["N"])
            arrays |= {
                "mask": (self.mask_type, [SIZE, self.mask_width]),
                "keypoints": (TensorProto.FLOAT, [3, 3]),
                "depth": (TensorProto.FLOAT16, [SIZE, SIZE]),
                "uncertainty_map": (TensorProto.FLOAT16, [SIZE, SIZE]),
            }
        if self.add_output:
            arrays["normals"] = (TensorProto.FLOAT, [3])
        arrays.pop(self.drop_output, None)
        constants: dict[str, NDArray[Any]] = {
            "zero": np.array(0, np.int64),
            "one": np.array(1, np.int64),
            "one_f": np.array(1, np.float32),
            "one_axis": np.array([1], np.int64),
            "large": np.array(1e6, np.float32),
            "rows_gain": np.array(self.rows_gain, np.float32),
            "kept_offset": np.array(self.kept_offset, np.float32),
            "sample_offset": np.array(self.sample_offset, np.int32),
            "ids": np.arange(4, dtype=np.float32)[None],
            "pixels": np.array(SIZE * SIZE, np.float32),
            "ones": np.ones((1, 6), np.float32),
            "axis1": np.array([1], np.int64),
        }
        for name, (dtype, extents) in arrays.items():
            constants[f"{name}_ones"] = np.ones([1, *extents], np.float32)
            constants[f"{name}_axes"] = np.arange(1, len(extents) + 1)
            nodes += [
                node("Unsqueeze", ["value", f"{name}_axes"], [f"{name}_v"]),
                node("Mul", [f"{name}_v", f"{name}_ones"], [f"{name}_f"]),
                node("Cast", [f"{name}_f"], [name], to=dtype),
            ]
            outputs[name] = (dtype, ["N", *extents])
        return model(nodes, inputs, outputs, constants)

    def _predicate(self) -> list[onnx.NodeProto]:
        """within [N]: 1 where all content is in some box."""
        node = helper.make_node
        return [
            node("Unsqueeze", ["score_in", "axis1"], ["score_column"]),
            node("Unsqueeze", ["value_in", "axis1"], ["value_column"]),
            node("Cast", ["value_column"], ["mask_column"], to=TensorProto.UINT8),
            node("Cast", ["mask_column"], ["mask_column_f"], to=TensorProto.FLOAT),
            node("Equal", ["mask_column_f", "ids"], ["of_class"]),
            node("Cast", ["of_class"], ["of_class_f"], to=TensorProto.FLOAT),
            node("Mul", ["of_class_f", "pixels"], ["counts"]),
            node("Mul", ["of_class_f", "value_column"], ["means"]),
            node("Mul", ["value_column", "ones"], ["others"]),  # confidences and depths
            node("Concat", ["score_column", "counts", "means", "others"], ["content_in"], axis=1),
            node("Unsqueeze", ["content_in", "axis1"], ["values"]),
            node("Gather", ["boxes", "zero"], ["lowest"], axis=2),
            node("Gather", ["boxes", "one"], ["highest"], axis=2),
            node("GreaterOrEqual", ["values", "lowest"], ["over"]),
            node("LessOrEqual", ["values", "highest"], ["under"]),
            node("And", ["over", "under"], ["inside"]),
            node("Cast", ["inside"], ["inside_f"], to=TensorProto.FLOAT),
            node("ReduceMin", ["inside_f"], ["alternatives"], axes=[2], keepdims=0),
            node("ReduceMax", ["alternatives"], ["within"], axes=[1], keepdims=0),
        ]

    def _mapping(self) -> onnx.ModelProto:
        rng = np.random.default_rng(0)
        constants = {"weight": rng.normal(size=(16, W_DIM)).astype(np.float32)}
        # A runtime may choose its kernels by the number of rows; this graph shows that number.
        nodes = [
            helper.make_node("MatMul", ["z", "weight"], ["product"]),
            helper.make_node("Shape", ["z"], ["shape"], end=1),
            helper.make_node("Cast", ["shape"], ["rows"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["product", "rows"], ["x" if self.num_classes else "w"]),
        ]
        inputs: Table = {"z": (TensorProto.FLOAT, ["N", 16])}
        if self.num_classes:
            constants["table"] = rng.normal(size=(self.num_classes, W_DIM)).astype(np.float32)
            inputs["c"] = (TensorProto.FLOAT, ["N", self.num_classes])
            nodes += [
                helper.make_node("MatMul", ["c", "table"], ["y"]),
                helper.make_node("Add", ["x", "y"], ["w"]),
            ]
        return model(nodes, inputs, {"w": (TensorProto.FLOAT, ["N", W_DIM])}, constants)


def model(
    nodes: list[onnx.NodeProto],
    inputs: Table,
    outputs: Table,
    constants: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    """A checked-by-nobody graph of opset 17."""

    def infos(table: Table) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, t, shape) for n, (t, shape) in table.items()]

    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "handmade", infos(inputs), infos(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def graphs(tmp_path: Path) -> Graphs:
    """Writes handmade bundles."""
    return Graphs(tmp_path / "handmade")


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "cache")
    yield bench
    for engine in bench.engines:
        engine.close()
    bench.device.assert_nothing_left()


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "cache")
    yield bench
    for engine in bench.engines:
        engine.close()
