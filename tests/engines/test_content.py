"""Bounds that graphs compare keep the samples that the predicate's text names, and no others."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from bundle.manifest import Manifest, SegmentationClass
from engines.content import (
    array_from_region,
    boxes_of_all,
    content_columns,
    content_excess,
    predicate_of_bundle,
)
from engines.errors import BundleLacks, EngineRunError, NotFiniteError
from engines.fake import FakeEngine, fake_bundle
from engines.ort import open_ort_engine
from labelmint.predicate import PredicateError
from tests.client.predicates import NAMES, predicate_texts, python_value
from tests.engines.conftest import NUM_WS, W_DIM, Graphs

PIXELS = 64


def named_manifest(boxes: int = 16) -> Manifest:
    """Classes and keypoints a, b and c; masks of 8 x 8 pixels."""
    manifest = fake_bundle(8, boxes=boxes).manifest
    assert manifest.heads and manifest.heads.segmentation and manifest.heads.keypoints
    segmentation = msgspec.structs.replace(
        manifest.heads.segmentation, classes=[SegmentationClass(name=n, color=0) for n in NAMES]
    )
    points = msgspec.structs.replace(manifest.heads.keypoints, names=list(NAMES), skeleton=[])
    heads = msgspec.structs.replace(manifest.heads, segmentation=segmentation, keypoints=points)
    return msgspec.structs.replace(manifest, heads=heads)


MANIFEST = named_manifest()
COLUMNS = content_columns(MANIFEST)


def random_content(samples: int) -> Any:
    """Content of samples with whole masks, with many values at round numbers and beside them."""
    draws = np.random.default_rng(0)
    content = draws.choice(np.array([0, 0.25, 0.3, 0.5, 0.75, 1], np.float32), (samples, 13))
    content += draws.choice(np.array([0, 0, 1e-7, -1e-7, 0.1], np.float32), content.shape)
    content[:, [0, 4, 5, 6]] = np.abs(content[:, [0, 4, 5, 6]])  # no uncertainty is negative
    for row in content:
        ends = np.sort(draws.choice([0, 1, 16, 19, 20, 32, 48, 64], 2))
        row[1:4] = np.diff([0, *ends, PIXELS])[draws.permutation(3)]
        row[10:13].sort()
    return content


CONTENT = random_content(100)


def numpy_mask(text: str) -> Any:
    """Which samples of CONTENT the text keeps, by plain numpy."""
    values: dict[tuple[str, str], Any] = {}
    for column, (kind, name) in enumerate(COLUMNS):
        value = CONTENT[:, column]
        values[kind, name] = value.astype(np.float64) / PIXELS if kind == "share" else value
    return python_value(text, values)


@settings(max_examples=200, database=None)
@given(texts=predicate_texts())
def test_bounds_keep_what_numpy_makes_of_two_thousand_texts(texts: list[str]) -> None:
    for text in texts:
        expected = numpy_mask(text)
        try:
            found = predicate_of_bundle(text, MANIFEST)
        except PredicateError as error:
            assert "over 16 alternatives" in str(error) or not expected.any(), (text, error)
            continue
        assert (found.met(CONTENT) == expected).all(), text


@pytest.mark.parametrize(
    "text",
    [
        "share('a') > 1",
        "share('a') < 0",
        "share('a') == 0.3",  # of 64 pixels
        "share('a') >= 0.5 and share('a') < 0.25",
        "share('a') > 0.6 and share('b') > 0.6",
        "share('a') < 0.1 and share('b') < 0.1 and share('c') < 0.1",
        "visible('a') and not visible('a')",
        "uncertainty < 0",
        "confidence('a') > 1e39",
        "(share('a') > 1 or share('a') < 0) and visible('b')",
        "depth(0.1) > 3 and depth(0.9) < 2",
    ],
)
def test_what_no_sample_can_meet_is_refused(text: str) -> None:
    with pytest.raises(PredicateError, match="which no sample can meet: a share is from 0 to 1"):
        predicate_of_bundle(text, MANIFEST)


@pytest.mark.parametrize(
    "text",
    [
        "share('a') >= 0",
        "share('a') <= 1",
        "share('a') != 0.3",
        "visible('a') or not visible('a')",
        "uncertainty >= 0",
        "confidence('a') < 1e39",
        "share('a') < 0.5 or share('a') >= 0.5",
    ],
)
def test_what_every_sample_meets_keeps_all(text: str) -> None:
    assert predicate_of_bundle(text, MANIFEST).met(CONTENT).all()


@pytest.mark.parametrize("side", [7, 8])
def test_a_share_is_compared_as_a_fraction_of_whole_pixels(side: int) -> None:
    """Also where n / 49 * 49 is not n."""
    assert MANIFEST.labels
    labels = msgspec.structs.replace(MANIFEST.labels, height=side, width=side)
    manifest = msgspec.structs.replace(MANIFEST, labels=labels)
    counts = np.arange(side * side + 1)
    content = np.repeat(CONTENT[:1], len(counts), axis=0)
    content[:, 1] = counts
    shares = counts / side**2
    for number in (*shares.tolist(), 1 / 3, 0.1, 0.015625000000000003):
        for comparator, kept in ((">=", shares >= number), (">", shares > number)):
            text = f"share('a') {comparator} {number!r}"
            if kept.any():
                met = predicate_of_bundle(text, manifest).met(content)
                np.testing.assert_array_equal(met, kept, err_msg=text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("share('d') > 0.1", "the class 'd', which this bundle lacks; write one of 'a', 'b', 'c'"),
        ("visible('A')", "the keypoint 'A', which this bundle lacks; write one of"),
        ("uncertainty('bb') < 1", "the class 'bb', which this bundle lacks; write one of 'b'"),
        ("depth(.25) < 1", r"depth\(0.25\), which .* not compute; write one of depth\(0.1\)"),
    ],
)
def test_an_unknown_name_is_told_with_its_neighbors(text: str, words: str) -> None:
    with pytest.raises(PredicateError, match=words):
        predicate_of_bundle(text, MANIFEST)


def test_too_many_alternatives_are_refused_with_the_limit() -> None:
    many = " and ".join(f"confidence('a') != {x / 10}" for x in range(1, 20))
    with pytest.raises(PredicateError, match="over 16 alternatives"):
        predicate_of_bundle(many, MANIFEST)
    fewer = " and ".join(many.split(" and ")[:9])
    assert predicate_of_bundle(f"not visible('b') or {fewer}", MANIFEST)


def test_a_name_of_two_classes_is_refused() -> None:
    manifest = fake_bundle(8).manifest
    assert manifest.heads and manifest.heads.segmentation
    twice = [SegmentationClass(name="a", color=0)] * 2
    segmentation = msgspec.structs.replace(manifest.heads.segmentation, classes=twice)
    heads = msgspec.structs.replace(manifest.heads, segmentation=segmentation)
    with pytest.raises(PredicateError, match=r"share\('a'\); this bundle has several of that name"):
        predicate_of_bundle("share('a') > 0", msgspec.structs.replace(manifest, heads=heads))


def test_what_a_bundle_does_not_compute_is_said_with_the_fix() -> None:
    with pytest.raises(BundleLacks, match=r"older version: export it again with"):
        predicate_of_bundle("share('a') > 0", named_manifest(boxes=0))
    assert MANIFEST.heads
    heads = msgspec.structs.replace(MANIFEST.heads, depth_quantiles=[])
    with pytest.raises(BundleLacks, match=r"no depths for it, .* older version: export it again"):
        predicate_of_bundle("depth(0.5) > 0", msgspec.structs.replace(MANIFEST, heads=heads))
    heads = msgspec.structs.replace(heads, depth=None)
    with pytest.raises(BundleLacks, match="no depth head: leave it out"):
        predicate_of_bundle("depth(0.5) > 0", msgspec.structs.replace(MANIFEST, heads=heads))
    with pytest.raises(BundleLacks, match="has no labels"):
        predicate_of_bundle("share('a') > 0", fake_bundle(8, heads=False).manifest)
    heads = msgspec.structs.replace(MANIFEST.heads, segmentation=None, score_source="depth")
    without = msgspec.structs.replace(MANIFEST, heads=heads)
    for text, lacking in (
        ("share('a') > 0", "no segmentation head: leave"),
        ("uncertainty('a') > 0", "no uncertainty of classes: leave"),
    ):
        with pytest.raises(BundleLacks, match=lacking):
            predicate_of_bundle(text, without)


def test_ranges_are_shares_and_plain_numbers() -> None:
    found = predicate_of_bundle("share('a') > 0.9 and visible('b')", MANIFEST)
    ends = np.zeros((2, 10), np.float32)
    ends[1] = 16
    assert found.ranges(*ends) == "confidence('b') was 0 to 16, share('a') was 0 to 0.25"


def predicate_on(columns: dict[int, tuple[float, float]]) -> Any:
    """Bounds of one box for the handmade graphs, [2, 2, 15]."""
    boxes = boxes_of_all(2, 15)
    for column, ends in columns.items():
        boxes[0, :, column] = ends
    return boxes


def rows_with(values: list[float]) -> Any:
    ws = np.zeros((len(values), NUM_WS, W_DIM), np.float32)
    ws[:, 0, 1] = values
    return ws


def test_an_engine_keeps_rows_by_their_own_boxes_and_tells_all_content(graphs: Graphs) -> None:
    graphs.boxes = 2
    engine = open_ort_engine(graphs.write(), batch_sizes=(4,))
    limits = np.full(3, np.inf, np.float32)
    ws = rows_with([1, 2, 3])
    assert engine.run(ws, limits, ()).sample.tolist() == [0, 1, 2]
    boxes = np.stack([predicate_on({9: (2, 9)}), predicate_on({9: (2, 9)}), predicate_on({})])
    result = engine.run(ws, limits, ("uncertainty",), boxes)
    assert result.sample.tolist() == [1, 2] and len(result.arrays["uncertainty"]) == 2
    assert result.content is not None
    expected = [
        [0, 0, 256, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 256, 0, 0, 0, 2, 0, 2, 2, 2, 2, 2, 2],
        [0, 0, 0, 0, 256, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3],
    ]
    np.testing.assert_array_equal(result.content, expected)
    boxes[2, 0, 1, 11] = 2.5
    assert engine.run(ws, limits, (), boxes).sample.tolist() == [1]


def test_an_engine_refuses_boxes_that_do_not_fit(graphs: Graphs) -> None:
    older = open_ort_engine(graphs.write(), batch_sizes=(4,))
    one, ws = np.full(1, np.inf, np.float32), rows_with([1])
    with pytest.raises(EngineRunError, match="computes no content"):
        older.run(ws, one, (), predicate_on({})[None])
    graphs.boxes = 2
    engine = open_ort_engine(graphs.write(), batch_sizes=(4,))
    with pytest.raises(EngineRunError, match=r"\[1, 1, 2, 15\]; .* \[1, 2, 2, 15\]"):
        engine.run(ws, one, (), predicate_on({})[None, :1])
    with pytest.raises(EngineRunError, match="NaN"):
        engine.run(ws, one, (), predicate_on({0: (np.nan, 1)})[None])
    ws[0, 0, 1] = np.nan
    with pytest.raises(NotFiniteError, match="content of rows"):
        engine.run(ws, one, ())


def test_the_fake_engine_judges_by_the_arrays_it_gives() -> None:
    bundle = fake_bundle(16)
    engine = FakeEngine(bundle.manifest)
    generator = bundle.manifest.generator
    draws = np.random.default_rng(0)
    ws = draws.standard_normal((8, generator.num_ws, generator.w_dim)).astype(np.float32)
    limits = np.full(8, np.inf, np.float32)
    result = engine.run(ws, limits, engine.outputs)
    assert result.content is not None
    counts = [np.bincount(mask.ravel(), minlength=4) for mask in result.arrays["mask"]]
    np.testing.assert_array_equal(result.content[:, 1:5], counts)
    np.testing.assert_array_equal(result.content[:, 9:12], result.arrays["keypoints"][..., 2])
    depths = np.sort(result.arrays["depth"].reshape(8, -1), axis=1)
    np.testing.assert_array_equal(result.content[:, 12:], depths[:, [25, 127, 230]])  # of 256
    found = predicate_of_bundle("share('part 1') > 0.25 and visible('left')", bundle.manifest)
    bounds = array_from_region(found.region, 16, result.content.shape[1])
    boxes = np.repeat(bounds[None], 8, axis=0)
    kept = engine.run(ws, limits, ("image",), boxes)
    assert kept.sample.tolist() == np.flatnonzero(found.met(result.content)).tolist()
    assert 0 < len(kept.sample) < 8


def test_content_of_other_numbers_than_the_labels_is_an_excess() -> None:
    draws = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "mask": draws.integers(0, 3, (2, 8, 8)).astype(np.uint8),
        "uncertainty": np.array([0.5, 0.25], np.float32),
        "uncertainty_map": draws.random((2, 8, 8)).astype(np.float16),
        "keypoints": draws.random((2, 3, 3)).astype(np.float32),
        "depth": draws.normal(5, 1, (2, 8, 8)).astype(np.float16),
    }
    maps = arrays["uncertainty_map"].astype(np.float32)
    members = arrays["mask"][..., None] == np.arange(3)
    counts = members.sum(axis=(1, 2))
    means = (members * maps[..., None]).sum(axis=(1, 2)) / counts
    score, points = arrays["uncertainty"][:, None], arrays["keypoints"][..., 2]
    depths = np.sort(arrays["depth"].reshape(2, 64), axis=1)[:, [6, 31, 57]]
    content = np.concatenate([score, counts, means, points, depths], axis=1).astype(np.float32)
    assert content_excess(content, arrays, COLUMNS) < 1
    for column in range(content.shape[1]):
        wrong = content.copy()
        wrong[1, column] *= 1.01
        assert content_excess(wrong, arrays, COLUMNS) > 1, column
