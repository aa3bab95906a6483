"""From a bundle's folder to a session, nothing is used that was not verified.

The corpus: handmade bundles whose tensors lie in files beside the graph, at any place of the
graph, in any kind of file, listed or not, and swapped after the check.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, BundleError, open_bundle
from bundle.manifest import MANIFEST
from engines import EngineOptions, open_mapping
from engines.errors import EngineError
from engines.onnx_graph import graph_from_bundle
from tests.engines.conftest import W_DIM, Graphs

GOOD, EVIL = np.zeros(W_DIM, np.float32), np.full(W_DIM, 666, np.float32)
Z = np.zeros((1, 16), np.float32)


def beside(name: str, location: str, **entries: int) -> TensorProto:
    """A tensor of W_DIM values in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[W_DIM])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def as_initializer(graph: onnx.GraphProto, tensor: TensorProto) -> None:
    graph.initializer.append(tensor)


def as_constant(graph: onnx.GraphProto, tensor: TensorProto) -> None:
    graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))


def in_a_branch(graph: onnx.GraphProto, tensor: TensorProto) -> None:
    inner = helper.make_node("Identity", ["inner"], ["branch"])
    tensor_of_branch = TensorProto.FromString(tensor.SerializeToString())
    tensor_of_branch.name = "inner"
    info = helper.make_tensor_value_info("branch", TensorProto.FLOAT, [W_DIM])
    branch = helper.make_graph([inner], "branch", [], [info], [tensor_of_branch])
    node = helper.make_node("If", ["always"], [tensor.name], then_branch=branch, else_branch=branch)
    graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    graph.node.insert(0, node)


PLACES = {place.__name__: place for place in (as_initializer, as_constant, in_a_branch)}


def mapping_with(place: Callable[..., None], tensor: TensorProto) -> onnx.ModelProto:
    """w is the product with 0, plus the tensor."""
    nodes = [
        helper.make_node("MatMul", ["z", "weight"], ["x"]),
        helper.make_node("Add", ["x", tensor.name], ["w"]),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n])
        for name, n in (("z", 16), ("w", W_DIM))
    ]
    weight = numpy_helper.from_array(np.zeros((16, W_DIM), np.float32), "weight")
    graph = helper.make_graph(nodes, "mapping", infos[:1], infos[1:], [weight])
    place(graph, tensor)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True)
class Folder:
    """A bundle and what lies around it."""

    graphs: Graphs

    def bundle(self, location: str, place: str, listed: bool) -> Bundle:
        """Its mapping adds the tensor in `location`."""
        self.graphs.write()
        model = mapping_with(PLACES[place], beside("b", location))
        (self.graphs.folder / "mapping.onnx").write_bytes(model.SerializeToString())
        if listed:
            return self.graphs.listed()
        target = self.graphs.folder / location
        hidden = (
            location != MANIFEST
            and target.exists()
            and target.parent.resolve() == self.graphs.folder.resolve()
        )
        if hidden:
            os.rename(target, self.graphs.folder.parent / "hidden")
        self.graphs.listed()
        if hidden:
            os.rename(self.graphs.folder.parent / "hidden", target)
        return open_bundle(self.graphs.folder)


@pytest.fixture
def around(graphs: Graphs) -> Folder:
    graphs.folder.mkdir()
    return Folder(graphs)


def mapped(bundle: Bundle) -> Any:
    return open_mapping(bundle, EngineOptions()).run(Z, None)[0]


def refusal(bundle: Bundle) -> str:
    with pytest.raises((BundleError, EngineError)) as caught:
        open_mapping(bundle, EngineOptions())
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("place", PLACES)
def test_data_beside_the_graph_is_used_if_the_manifest_lists_it(around: Folder, place: str) -> None:
    (around.graphs.folder / "b.bin").write_bytes((GOOD + 3).tobytes())
    bundle = around.bundle("b.bin", place, listed=True)
    assert "b.bin" in bundle.manifest.files
    assert mapped(bundle).tolist() == [3.0] * W_DIM


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    ["b.bin", "./b.bin", "sub/../b.bin", "../b.bin", "/ABSOLUTE/b.bin", "B.BIN", "", ".",
     MANIFEST, "sub/b.bin", "b.bin\0", "b.bin ", "/dev/zero", "link", "hard", "file://b.bin"],
)  # fmt: skip
def test_data_in_a_file_that_is_not_listed_is_refused(
    around: Folder, place: str, location: str
) -> None:
    folder = around.graphs.folder
    (folder / "sub").mkdir()
    for path in (folder, folder.parent, folder / "sub"):
        (path / "b.bin").write_bytes(EVIL.tobytes())
    (folder / "link").symlink_to(folder.parent / "b.bin")
    os.link(folder.parent / "b.bin", folder / "hard")
    names = [entry.name for entry in os.scandir(folder)]
    shutil.rmtree(folder / "sub")
    for name in ("b.bin", "link", "hard"):
        (folder / name).unlink()
    bundle = around.bundle(location.replace("ABSOLUTE", str(folder.parent)), place, listed=False)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.bin").write_bytes(EVIL.tobytes())
    for name in names:
        if name not in ("sub", MANIFEST):
            (folder / name).write_bytes(EVIL.tobytes())
    message = refusal(bundle)
    assert "mapping.onnx cannot be loaded" in message and "its files are" in message


def test_data_that_is_swapped_after_the_check_is_refused(around: Folder) -> None:
    path = around.graphs.folder / "b.bin"
    path.write_bytes(GOOD.tobytes())
    bundle = around.bundle("b.bin", "as_initializer", listed=True)
    for swap in (
        lambda: path.write_bytes(EVIL.tobytes()),
        lambda: path.symlink_to("/dev/zero"),
        lambda: os.mkfifo(path),
        lambda: None,
    ):
        path.unlink()
        swap()
        assert "b.bin" in refusal(bundle)


@pytest.mark.parametrize(
    "entries",
    [{"offset": -4}, {"offset": 1 << 40}, {"length": 1 << 60}, {"offset": 4, "length": 4 * W_DIM}],
)
def test_data_outside_its_file_is_refused(around: Folder, entries: dict[str, int]) -> None:
    (around.graphs.folder / "b.bin").write_bytes(GOOD.tobytes())
    around.bundle("b.bin", "as_initializer", listed=True)
    model = mapping_with(as_initializer, beside("b", "b.bin", **entries))
    (around.graphs.folder / "mapping.onnx").write_bytes(model.SerializeToString())
    assert "it needs bytes" in refusal(around.graphs.listed())


def test_tensors_of_the_same_bytes_cannot_make_a_graph_larger_than_onnx_allows(
    around: Folder,
) -> None:
    """They are copied into the graph, each of them."""
    (around.graphs.folder / "b.bin").write_bytes(bytes(1 << 20))
    around.bundle("b.bin", "as_initializer", listed=True)
    model = mapping_with(as_initializer, beside("b", "b.bin"))
    model.graph.initializer.extend(beside(f"b{number}", "b.bin") for number in range(9))
    (around.graphs.folder / "mapping.onnx").write_bytes(model.SerializeToString())
    bundle = around.graphs.listed()
    assert len(graph_from_bundle(bundle, "mapping.onnx").content) > 10 << 20
    with pytest.raises(EngineError, match="with its tensors it has over 8388608 bytes"):
        graph_from_bundle(bundle, "mapping.onnx", max_bytes=8 << 20)


def test_a_graph_without_other_files_keeps_its_bytes(graphs: Graphs) -> None:
    bundle = graphs.write()
    for name in bundle.manifest.files:
        assert graph_from_bundle(bundle, name).content == (bundle.path / name).read_bytes()


def test_compiled_parts_in_other_files_are_refused(graphs: Graphs) -> None:
    graphs.write()
    model = onnx.load(graphs.folder / "mapping.onnx")
    node = helper.make_node("EPContext", ["z"], ["w"], domain="com.microsoft", embed_mode=0,
                            ep_cache_context="evil.bin")  # fmt: skip
    model.graph.node.append(node)
    onnx.save(model, graphs.folder / "mapping.onnx")
    assert "EPContext" in refusal(graphs.listed())


def test_a_field_that_only_the_runtime_sees_is_refused(graphs: Graphs) -> None:
    """protobuf in C++ reads the lower 32 bits of a field's number, of up to 35."""
    graphs.write()
    location = b"\x0a\x08location\x12\x05b.bin"
    tensor = (  # float32 [1] named b; 13 external_data and 14 data_location with bit 32
        b"\x08\x01\x10\x01\x42\x01b"
        + b"\xea\x80\x80\x80\x10" + bytes((len(location),)) + location
        + b"\xf0\x80\x80\x80\x10\x01"
    )  # fmt: skip
    graph = b"\x2a" + bytes((len(tensor),)) + tensor  # 5 initializer
    model = graphs.folder / "mapping.onnx"
    model.write_bytes(model.read_bytes() + b"\x3a" + bytes((len(graph),)) + graph)
    assert "over 32 bits" in refusal(graphs.listed())


def test_a_tensor_that_is_written_in_two_parts_is_refused(graphs: Graphs) -> None:
    """protobuf merges them: one says which file, the other that there is one."""
    graphs.write()

    def field(number: int, content: bytes) -> bytes:
        return bytes((number << 3 | 2, len(content))) + content

    name = field(13, field(1, b"location") + field(2, b"b.bin"))
    outside = bytes((14 << 3, 1))  # data_location EXTERNAL
    for parts in ((name, outside), (outside, name)):
        tensors = b"".join(field(5, b"\x08\x01\x10\x01" + part) for part in parts)
        attribute = field(1, b"value") + tensors + b"\xa0\x01\x04"  # 20 type TENSOR
        node = field(2, b"b") + field(4, b"Constant") + field(5, attribute)
        whole = (graphs.folder / "mapping.onnx").read_bytes()
        (graphs.folder / "mapping.onnx").write_bytes(whole + field(7, field(1, node)))
        (graphs.folder / "b.bin").write_bytes(bytes(4))
        assert "mapping.onnx cannot be loaded" in refusal(graphs.listed())
        (graphs.folder / "mapping.onnx").write_bytes(whole)


def test_the_own_format_of_the_runtime_is_refused_also_as_onnx(graphs: Graphs) -> None:
    """Nobody looked for other files in it. These bytes are one unknown field of ONNX."""
    graphs.write()
    (graphs.folder / "mapping.onnx").write_bytes(b"\x7a\x06\0\0ORTM")
    assert "own format" in refusal(graphs.listed())


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_no_session_has_what_was_not_verified(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A mangled graph is refused, or runs without the evil file beside it."""
    graphs = Graphs(tmp_path_factory.mktemp("b") / "b")
    graphs.folder.mkdir()
    place = data.draw(st.sampled_from(sorted(PLACES)))
    (graphs.folder / "b.bin").write_bytes(GOOD.tobytes())
    Folder(graphs).bundle("b.bin", place, listed=True)
    content = bytearray((graphs.folder / "mapping.onnx").read_bytes())
    for _ in range(data.draw(st.integers(0, 2))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    if data.draw(st.booleans()):
        content = content.replace(b"b.bin", b"evil!")
    (graphs.folder / "mapping.onnx").write_bytes(content)
    bundle = graphs.listed()
    (graphs.folder / "evil!").write_bytes(EVIL.tobytes())
    try:
        graph = graph_from_bundle(bundle, "mapping.onnx")
    except (BundleError, EngineError) as error:
        assert "\n" not in str(error)
        return
    try:
        model = onnx.load_from_string(graph.content)
    except Exception:
        return  # no runtime takes it either
    located = [t for t in all_tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    assert not located


def all_tensors(graph: onnx.GraphProto) -> list[TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                tensors += all_tensors(inner)
    return tensors


def test_the_runtime_would_use_the_file_if_it_got_the_path(around: Folder) -> None:
    """Why sessions get bytes; if this fails, the runtime has become stricter."""
    bundle = around.bundle("b.bin", "as_initializer", listed=False)
    (around.graphs.folder / "b.bin").write_bytes(EVIL.tobytes())
    path = str(around.graphs.folder / "mapping.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"z": Z})[0][0].tolist() == [666.0] * W_DIM
    assert "has no b.bin; its files are" in refusal(bundle)
