"""The CPU engine keeps the protocol: whole batches, honest bookkeeping, fixed sizes."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import FileError
from engines import EngineError, EngineOptions, open_engine, open_mapping
from engines.errors import EngineOpenError, EngineRunError, NotFiniteError
from engines.ort import open_ort_engine

NUM_WS, W_DIM = 6, 16
EIGHT = EngineOptions(batch_sizes=(8,))


def rows(*scores: float) -> NDArray[np.float32]:
    """ws whose score is given and whose value counts from 10."""
    ws = np.zeros((len(scores), NUM_WS, W_DIM), np.float32)
    ws[:, 0, 0] = scores
    ws[:, 0, 1] = np.arange(10, 10 + len(scores))
    return ws


def limits(n: int, limit: float = np.inf) -> NDArray[np.float32]:
    return np.full(n, limit, np.float32)


def test_kept_samples_come_in_order_with_their_own_arrays(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    result = engine.run(rows(0.3, 0.9, 0.1, 0.8, 0.5), limits(5, 0.5), engine.outputs)
    assert result.sample.tolist() == [0, 2, 4] and result.sample.dtype == np.int32
    for name, array in result.arrays.items():
        if name != "uncertainty":
            first = array.reshape(3, -1)[:, 0]
            assert first.tolist() == [10, 12, 14], name
    assert result.arrays["uncertainty"].tolist() == [np.float32(x) for x in (0.3, 0.1, 0.5)]


def test_each_row_has_its_own_threshold(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    thresholds = np.array([0.4, 0.4, np.inf], np.float32)
    assert engine.run(rows(0.3, 0.9, 0.9), thresholds, ()).sample.tolist() == [0, 2]


def test_nothing_kept_is_an_empty_result(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    result = engine.run(rows(0.3, 0.9), limits(2, 0.1), ("image",))
    assert result.sample.shape == (0,) and result.arrays["image"].shape == (0, 16, 16, 3)


def test_only_requested_outputs_come_back(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    assert list(engine.run(rows(0.3), limits(1), ("mask",)).arrays) == ["mask"]


def test_padding_never_comes_back(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EngineOptions(batch_sizes=(2, 5)))
    for n in range(1, 6):
        result = engine.run(rows(*[0.0] * n), limits(n), ("image",))
        assert result.sample.tolist() == list(range(n))
        assert len(result.arrays["image"]) == n


def test_results_stay_as_they_were_when_the_engine_runs_again(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EngineOptions(batch_sizes=(2,)))
    first = engine.run(rows(0.0, 0.0), limits(2), engine.outputs)
    copies = {name: array.copy() for name, array in first.arrays.items()}
    for _ in range(3):
        engine.run(rows(0.0, 0.0) + 50, limits(2), engine.outputs)
    for name, array in first.arrays.items():
        assert np.array_equal(array, copies[name]), name


def test_few_kept_rows_do_not_hold_the_whole_batch(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    image = engine.run(rows(0.1, 0.9), limits(2, 0.5), ("image",)).arrays["image"]
    assert image.base is None and image.flags.c_contiguous


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error_naming_the_row(graphs: Any, bad: float) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    with pytest.raises(NotFiniteError, match=r"rows \[1\] is not finite") as caught:
        engine.run(rows(0.1, bad, 0.2), limits(3, 0.15), ("image",))
    assert caught.value.rows == (1,)
    # The engine is not spoilt.
    assert engine.run(rows(0.1), limits(1), ()).sample.tolist() == [0]


def test_the_graph_meets_fixed_sizes_only(graphs: Any) -> None:
    graphs.rows_gain = 1
    engine = open_engine(graphs.write(), EngineOptions(batch_sizes=(2, 5)))
    for n, size in ((1, 2), (2, 2), (3, 5), (5, 5)):
        image = engine.run(rows(*[0.0] * n), limits(n), ("image",)).arrays["image"]
        assert image[0, 0, 0, 0] == 10 + size


def test_padding_is_not_named_among_rows_that_are_not_finite(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EngineOptions(batch_sizes=(4,)))
    with pytest.raises(NotFiniteError) as caught:
        engine.run(rows(0.1, np.nan), limits(2), ())
    assert caught.value.rows == (1,)


@pytest.mark.parametrize(("field", "value"), [("sample_offset", 1), ("kept_offset", -1)])
def test_a_graph_that_miscounts_is_caught(graphs: Any, field: str, value: int) -> None:
    setattr(graphs, field, value)
    engine = open_engine(graphs.write(), EIGHT)
    with pytest.raises(EngineRunError):
        engine.run(rows(0.1, 0.2), limits(2), ("image",))


def test_a_bundle_without_heads_renders_images(graphs: Any) -> None:
    graphs.heads = False
    engine = open_engine(graphs.write(), EIGHT)
    assert engine.outputs == ("image",)
    result = engine.run(rows(0.1, 0.2, 0.3), limits(3), ("image",))
    assert result.arrays["image"][:, 0, 0, 0].tolist() == [10, 11, 12]
    with pytest.raises(EngineRunError, match="no score"):
        engine.run(rows(0.1), limits(1, 0.5), ("image",))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("drop_output", "mask", "the manifest needs .*mask"),
        ("add_output", True, "has outputs .*normals"),
        ("mask_type", 6, r"mask of tensor\(int32\)"),
        ("mask_width", 15, r"mask .*15"),
        ("heads", False, "the manifest needs .*uncertainty"),
    ],
)
def test_a_graph_that_contradicts_the_manifest_is_refused(
    graphs: Any, field: str, value: Any, words: str
) -> None:
    bundle = graphs.write()
    setattr(graphs, field, value)
    files = graphs.write().manifest.files
    bundle = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, files=files))
    with pytest.raises(EngineOpenError, match=words):
        open_engine(bundle, EngineOptions())


def test_a_file_that_is_no_graph_is_refused_in_one_line(graphs: Any) -> None:
    graphs.write()
    for name in ("labeller.onnx", "mapping.onnx"):
        (graphs.folder / name).write_bytes(b"\x08\x01nonsense")
    bundle = graphs.listed()
    for opener in (open_engine, open_mapping):
        with pytest.raises(EngineOpenError, match=r"\.onnx cannot be loaded") as caught:
            opener(bundle, EngineOptions())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [(0,), (4, 2), (2, 2), (-1,)])
def test_batch_sizes_must_ascend(graphs: Any, sizes: tuple[int, ...]) -> None:
    with pytest.raises(EngineOpenError, match="ascending"):
        open_engine(graphs.write(), EngineOptions(batch_sizes=sizes))


@pytest.mark.parametrize(
    ("ws", "thresholds", "outputs", "words"),
    [
        (rows(), limits(0), (), "ws has 0 rows"),
        (rows(*[0.0] * 9), limits(9), (), "ws has 9 rows; a run takes 1 to 8"),
        (rows(0.0)[:, :2], limits(1), (), "ws is float32"),
        (rows(0.0).astype(np.float64), limits(1), (), "ws is float64"),
        (rows(0.0), limits(2), (), "max_uncertainty is"),
        (rows(0.0), limits(1, np.nan), (), "NaN"),
        (rows(0.0), limits(1), ("normals",), "outputs has normals"),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    graphs: Any, ws: Any, thresholds: Any, outputs: tuple[str, ...], words: str
) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    with pytest.raises(EngineRunError, match=words):
        engine.run(ws, thresholds, outputs)


def test_a_closed_engine_refuses_and_closing_twice_is_fine(graphs: Any) -> None:
    engine = open_engine(graphs.write(), EIGHT)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(rows(0.0), limits(1), ())


def test_half_precision_that_the_bundle_lacks_is_refused(graphs: Any) -> None:
    with pytest.raises(FileError, match=r"no labeller\.fp16\.onnx"):
        open_ort_engine(graphs.write(), "float16")


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_mapped_row_does_not_depend_on_its_company(graphs: Any, num_classes: int) -> None:
    graphs.num_classes = num_classes
    mapping = open_mapping(graphs.write(), EngineOptions())
    rng = np.random.default_rng(0)
    z = rng.normal(size=(37, 16)).astype(np.float32)
    c = np.eye(3, dtype=np.float32)[rng.integers(3, size=37)] if num_classes else None
    whole = mapping.run(z, c)
    assert whole.shape == (37, W_DIM)
    for start, end in ((0, 1), (5, 6), (3, 20), (36, 37), (7, 15)):
        part = mapping.run(z[start:end], None if c is None else c[start:end])
        assert part.tobytes() == whole[start:end].tobytes()


def test_mapping_no_rows_gives_no_rows(graphs: Any) -> None:
    mapping = open_mapping(graphs.write(), EngineOptions())
    assert mapping.run(np.zeros((0, 16), np.float32), None).shape == (0, W_DIM)
