"""A graph that never returns meets the limit of its warm-up, and the process goes on."""

import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle
from engines.errors import EngineOpenError, EngineRunError
from engines.open import EngineOptions, open_engine, open_mapping
from service.loading import warm_up
from tests.engines.conftest import Graphs
from tests.hangs import HANG_S
from tests.service.test_process import ROOT, command, running


def endless(path: Path, name: str) -> None:
    """The input `name` passes a Loop without end before it reaches the rest of the graph."""
    model = onnx.load(path)
    graph = model.graph
    infos = {
        key: helper.make_tensor_value_info(key, kind, shape)
        for key, kind, shape in (
            ("i", TensorProto.INT64, []), ("c", TensorProto.BOOL, []),
            ("c_out", TensorProto.BOOL, []), ("v", TensorProto.FLOAT, None),
            ("v_out", TensorProto.FLOAT, None),
        )
    }  # fmt: skip
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Neg", ["v"], ["v_out"])],
        "body", [infos["i"], infos["c"], infos["v"]], [infos["c_out"], infos["v_out"]],
    )  # fmt: skip
    for node in graph.node:
        for position, given in enumerate(node.input):
            if given == name:
                node.input[position] = "looped"
    graph.initializer.append(numpy_helper.from_array(np.array(True), "forever"))
    graph.node.insert(0, helper.make_node("Loop", ["", "forever", name], ["looped"], body=body))
    onnx.save(model, path)


@pytest.fixture(
    params=[("labeller.onnx", "ws"), pytest.param(("mapping.onnx", "z"), marks=pytest.mark.long)]
)
def looping(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    graphs = Graphs(tmp_path / "looping")
    graphs.write()
    endless(graphs.folder / request.param[0], request.param[1])
    return graphs.listed()


def test_an_endless_graph_ends_at_the_limit_of_the_warm_up(looping: Bundle) -> None:
    engine = open_engine(looping, EngineOptions())
    began = time.monotonic()
    with pytest.raises(EngineRunError, match=r"warm-up: the runs did not end within 0\.5 s"):
        warm_up(engine, open_mapping(looping, EngineOptions()), looping, 0.5)
    assert 0.5 <= time.monotonic() - began < HANG_S


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 31, 1 << 31, 1 << 31], [-1, 1 << 40]])
def test_a_graph_of_a_constant_that_no_memory_holds_is_refused(
    tmp_path: Path, shape: list[int]
) -> None:
    graphs = Graphs(tmp_path / "huge")
    graphs.write()
    model = onnx.load(graphs.folder / "labeller.onnx")
    for node in model.graph.node:
        node.input[:] = ["with_constant" if given == "ws" else given for given in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "extents"))
    for position, node in enumerate((
        helper.make_node("ConstantOfShape", ["extents"], ["constant"]),
        helper.make_node("ReduceMax", ["constant"], ["scalar"], keepdims=0),
        helper.make_node("Add", ["ws", "scalar"], ["with_constant"]),
    )):  # fmt: skip
        model.graph.node.insert(position, node)
    onnx.save(model, graphs.folder / "labeller.onnx")
    bundle = graphs.listed()
    with pytest.raises((EngineOpenError, EngineRunError), match="ConstantOfShape"):
        engine = open_engine(bundle, EngineOptions())
        warm_up(engine, open_mapping(bundle, EngineOptions()), bundle, HANG_S)


def test_a_start_with_an_endless_graph_fails_in_one_line(looping: Bundle) -> None:
    line = ("run", "--bundle", f"m={looping.path}", "--listen", "127.0.0.1:0")
    done = subprocess.run(
        command(*line, "--load-timeout", "0.5"), cwd=ROOT, capture_output=True, text=True,
        timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: bundle m: " in done.stderr and "within 0.5 s" in done.stderr


@pytest.mark.long
def test_an_endless_graph_in_the_watched_directory_is_no_matter_to_others(
    looping: Bundle, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    Graphs(watched / "good").write()
    looping.path.rename(watched / "endless")
    main = Graphs(tmp_path / "main").write()
    flags = ("--watch", str(watched), "--watch-interval", "0.1", "--load-timeout", "2")
    with running(main.path, *flags) as process:
        served = process.get("/metrics")[1]
        assert 'labelmint_model_info{bundle_id="' in served and 'model="good"' in served
        assert 'labelmint_model_loads_total{model="endless",outcome="failed"} 1.0' in served
