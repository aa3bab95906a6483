"""Masks alone have the bits of the whole graph, and so have the shares that are counted in them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.open import Bundle, open_bundle
from engines.content import content_columns, predicate_of_bundle
from engines.errors import EngineOpenError, EngineRunError
from engines.masks import MaskEngine
from engines.open import EngineOptions, open_engine, open_mapping
from engines.sampling import default_options, ws_from_indices
from training.directions.draws import _opened_measure, compares_shares_alone

OPTIONS = EngineOptions(batch_sizes=(4,), threads=1)


def drawn(bundle: Bundle, count: int) -> NDArray[np.float32]:
    """w+ of the first samples."""
    generator, mapping = bundle.manifest.generator, open_mapping(bundle, OPTIONS)
    indices = np.arange(count, dtype=np.uint64)
    return ws_from_indices(mapping, generator, default_options(generator), indices)


@pytest.mark.long
def test_masks_and_shares_are_those_of_the_whole_graph(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    ws = drawn(bundle, 16)
    masks, whole = MaskEngine(bundle, OPTIONS), open_engine(bundle, OPTIONS)
    predicate = predicate_of_bundle("share('glasses') >= 0.1", bundle.manifest)
    assert compares_shares_alone(predicate)
    counted, batch = _opened_measure(bundle, predicate, OPTIONS)
    columns = content_columns(bundle.manifest)
    shares = [n for n, column in enumerate(columns) if column.kind == "share"]
    seen = set[int]()
    for start in range(0, 16, batch):
        part = ws[start : start + batch]
        wanted = whole.run(part, np.full(len(part), np.inf, np.float32), ("mask",))
        found = masks.run(part)
        assert found.dtype == np.uint8 and np.array_equal(found, wanted.arrays["mask"])
        assert wanted.content is not None
        assert np.array_equal(counted(part)[:, shares], wanted.content[:, shares])
        seen.update(np.unique(found).tolist())
    assert len(seen) == len(shares)
    assert np.array_equal(masks.run(ws[:1]), masks.run(ws[:4])[:1])
    with pytest.raises(EngineRunError):
        masks.run(ws[:1, :3])


@pytest.mark.long
def test_other_statistics_take_the_whole_graph(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    predicate = predicate_of_bundle("uncertainty < 1 and share('class 1') < 2", bundle.manifest)
    assert not compares_shares_alone(predicate)
    measured, _ = _opened_measure(bundle, predicate, OPTIONS)
    ws = drawn(bundle, 2)
    result = open_engine(bundle, OPTIONS).run(ws, np.full(2, np.inf, np.float32), ())
    assert result.content is not None and measured(ws).tobytes() == result.content.tobytes()


def test_a_graph_whose_masks_are_not_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    from engines.masks import _mask_graph
    from engines.onnx_graph import OnnxGraph

    node = onnx.helper.make_node("Relu", ["ws"], ["mask"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("ws", 1, [1])], [value("mask", 1, [1])])
    content = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(EngineOpenError, match="export the bundle again"):
        _mask_graph(OnnxGraph(Path("g.onnx"), content))
