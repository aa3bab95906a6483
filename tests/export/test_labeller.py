"""The exported graph equals the paper's formulas, at every size, head, crop and batch extent."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from engines.content import boxes_of_all
from export.graph.labeller import Labeller
from export.graph.spec import LabelSpec
from export.graph.to_onnx import labeller_onnx, mapping_onnx
from nets.generator import Generator as AnyGenerator
from nets.interpreter import Interpreter
from nets.stylegan2 import GeneratorConfig, MappingNetwork
from tests.export.networks import (
    random_generator,
    random_interpreter,
    random_stylegan3,
    random_ws,
)
from tests.export.reference import Reference, centroid, reference, top_mean

NEAR_TIE = 1e-4  # lead of a member's best class, in logits
INFINITE = float("inf")


@dataclass(frozen=True)
class Case:
    """One exported graph."""

    generator: AnyGenerator
    interpreter: Interpreter
    spec: LabelSpec
    session: ort.InferenceSession

    def run(
        self, ws: torch.Tensor, limits: Any = INFINITE, boxes: Any = None
    ) -> dict[str, NDArray[Any]]:
        thresholds = np.broadcast_to(np.asarray(limits, np.float32), (len(ws),)).copy()
        extents = self.session.get_inputs()[2].shape[1:]
        boxes = boxes_of_all(extents[0], extents[2]) if boxes is None else boxes
        boxes = np.broadcast_to(boxes, (len(ws), *extents)).astype(np.float32)
        feed = {"ws": ws.numpy(), "max_uncertainty": thresholds, "boxes": boxes}
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feed), strict=True))

    def reference(self, ws: torch.Tensor) -> Reference:
        return reference(
            copy.deepcopy(self.generator).double(),
            copy.deepcopy(self.interpreter).double(),
            ws.double(),
            self.spec.grid,
            self.spec.crop_top,
            self.spec.height,
            self.spec.resize,
        )


def open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def exported(
    folder: Path,
    resolution: int,
    spec: LabelSpec,
    precision: Literal["float32", "float16"] = "float32",
    strip_pixels: int = 256,
    tile: int = 8,
) -> Case:
    generator: AnyGenerator = random_generator(resolution, start=spec.start)
    if spec.tap_recipe == "stylegan3":
        generator = random_stylegan3(resolution)
    interpreter = random_interpreter(generator.config.features)
    labeller = Labeller(
        generator, interpreter, spec, precision, strip_pixels=strip_pixels, tile=tile
    )
    path = folder / "labeller.onnx"
    labeller_onnx(labeller, path)
    return Case(generator, interpreter, spec, open_session(path))


SPECS = {
    "crop at 64, levels merged at nodes": (64, LabelSpec(64, 5, 43, 64, "segmentation")),
    "taps finer than the grid": (32, LabelSpec(16, 0, 16, 16, "keypoints", 0.1, 2)),
    "two sizes finer, grid of one tile": (32, LabelSpec(8, 1, 6, 8, "depth", 0.25)),
    "tall, crop, merged at nodes": (64, LabelSpec(64, 5, 43, 32, "segmentation", start=(4, 2))),
    "wide, nearest": (64, LabelSpec(64, 3, 37, 80, "keypoints", resize="nearest", start=(3, 5))),
    "wide, finer, small tiles": (32, LabelSpec(8, 1, 4, 14, "depth", 0.25, start=(3, 7))),
    "a StyleGAN3, maps from 16 px on": (
        64,
        LabelSpec(64, 5, 43, 64, "segmentation", tap_recipe="stylegan3"),
    ),
    "scored by entropy": (32, LabelSpec(32, 3, 20, 32, "segmentation", score_measure="entropy")),
    "scored by least confidence": (
        32,
        LabelSpec(32, 3, 20, 32, "segmentation", score_measure="least_confidence"),
    ),
    "a StyleGAN3, taps finer than the grid": (
        64,
        LabelSpec(32, 0, 32, 32, "keypoints", 0.1, 2, tap_recipe="stylegan3"),
    ),
}


QUICK = (
    "crop at 64, levels merged at nodes", "taps finer than the grid", "scored by least confidence",
)  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(spec, id=name, marks=() if name in QUICK else pytest.mark.long)
        for name, spec in SPECS.items()
    ],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    resolution, spec = request.param
    tile = 2 if spec.tap_recipe == "stylegan3" and spec.grid == 64 else 8  # 16 px: merged, or not
    return exported(tmp_path_factory.mktemp("graph"), resolution, spec, tile=tile)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Case:
    spec = LabelSpec(16, 0, 16, 16, "segmentation")
    return exported(tmp_path_factory.mktemp("graph"), 16, spec)


@pytest.mark.parametrize("samples", [1, 3])
def test_every_output_equals_the_papers_formulas(case: Case, samples: int) -> None:
    ws = random_ws(case.generator, samples, seed=samples)
    out, expected = case.run(ws), case.reference(ws)
    assert out["kept"] == samples
    np.testing.assert_array_equal(out["sample"], np.arange(samples))

    steps = np.abs(out["image"].astype(int) - expected.image)
    assert steps.max() <= 1
    clear = expected.margin > NEAR_TIE
    assert clear.mean() > 0.995, f"{(~clear).sum()} of {clear.size} pixels are near-ties"
    np.testing.assert_array_equal(out["mask"][clear], expected.mask[clear])
    assert len(np.unique(out["mask"])) > 2, "an empty mask proves nothing"

    np.testing.assert_allclose(out["depth"], expected.depth, rtol=1e-3, atol=1e-4)
    maps = expected.scored(case.spec)
    scores = [top_mean(m, case.spec.score_fraction) for m in maps]
    np.testing.assert_allclose(out["uncertainty"], scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["uncertainty_map"], maps, rtol=1e-3, atol=1e-5)


def test_the_content_is_counted_from_the_labels_and_their_formulas(case: Case) -> None:
    ws = random_ws(case.generator, 4)
    out, expected = case.run(ws), case.reference(ws)
    points = out["keypoints"].shape[1]
    classes = (out["content"].shape[1] - 1 - points - 3) // 2
    score, counts, means, confidences, depths = np.split(
        out["content"], np.cumsum([1, classes, classes, points]), axis=1
    )
    np.testing.assert_array_equal(score[:, 0], out["uncertainty"])
    maps = expected.scored(case.spec)
    for n, mask in enumerate(out["mask"]):
        for number in range(classes):
            of_class = mask == number
            assert counts[n, number] == of_class.sum()
            mean = maps[n][of_class].mean() if of_class.any() else 0.0
            np.testing.assert_allclose(means[n, number], mean, rtol=1e-4, atol=1e-6)
    peaks = expected.heatmaps.max(axis=(2, 3))
    np.testing.assert_allclose(confidences, peaks, rtol=1e-4, atol=1e-5)
    for row, depth in zip(depths, expected.depth, strict=True):
        values = np.sort(depth.ravel())
        tenths = [math.ceil(Fraction(part, 10) * values.size) - 1 for part in (1, 5, 9)]
        near = np.ptp(values) * 2**-16 + 1e-4
        np.testing.assert_allclose(row, values[tenths], rtol=1e-4, atol=near)
    assert (counts > 0).sum() > 2 * len(counts), "one class proves nothing"


@pytest.mark.parametrize("seed", range(6))
def test_a_predicate_keeps_the_samples_whose_content_is_in_one_of_its_boxes(
    scored: Case, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    ws = random_ws(scored.generator, 8)
    everything = scored.run(ws)
    content = everything["content"]
    alternatives, columns = scored.session.get_inputs()[2].shape[1::2]
    boxes = np.full((8, alternatives, 2, columns), np.inf, np.float32)
    boxes[:, :, 1] = -np.inf  # no box
    used = draws.integers(1, 4)
    boxes[:, :used, 0], boxes[:, :used, 1] = -np.inf, np.inf
    for box in range(used):
        for column in draws.choice(columns, 2, replace=False):
            # Values that occur, so that bounds are met exactly.
            ends = np.sort(draws.choice(content[:, column], 2))
            boxes[:, box, :, column] = ends
    limits = np.float32(np.quantile(everything["uncertainty"], 0.8))
    out = scored.run(ws, limits, boxes)
    keep = everything["uncertainty"] <= limits
    keep &= [
        any(np.all((low <= row) & (row <= high)) for low, high in boxes[n])
        for n, row in enumerate(content)
    ]
    order = np.argsort(~keep, kind="stable")
    assert out["kept"] == keep.sum()
    for name in everything.keys() - {"sample", "kept"}:
        np.testing.assert_array_equal(out[name], everything[name][order], err_msg=name)


def test_keypoints_are_the_centroid_around_the_first_maximum(case: Case) -> None:
    ws = random_ws(case.generator, 4)
    points, heatmaps = case.run(ws)["keypoints"], case.reference(ws).heatmaps
    planes = heatmaps.reshape(-1, *heatmaps.shape[2:])
    for point, heatmap in zip(points.reshape(-1, 3), planes, strict=True):
        second, first = np.sort(heatmap.ravel())[-2:]
        if first - second > 1e-4:  # otherwise either peak is right
            expected = centroid(heatmap, case.spec.keypoint_window_px)
            np.testing.assert_allclose(point, expected, rtol=1e-4, atol=1e-4)


def threshold_draws(scores: NDArray[Any]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    n = len(scores)
    return {
        "all kept": np.full(n, np.inf),
        "all rejected": np.full(n, -np.inf),
        "a score at its own threshold is kept": scores,
        "just under its own threshold": np.nextafter(scores, np.float32(-np.inf)),
        "padding": np.where(np.arange(n) < n // 2, np.inf, -np.inf),
        "common": np.full(n, np.median(scores)),
        "random": rng.permutation(scores),
        "random again": rng.permutation(scores),
    }


@pytest.mark.parametrize("which", threshold_draws(np.zeros(8, np.float32)))
def test_kept_samples_come_first_and_in_order(scored: Case, which: str) -> None:
    ws = random_ws(scored.generator, 8)
    ws[5] = ws[2]  # equal scores
    everything = scored.run(ws)
    scores = everything["uncertainty"]
    limits = threshold_draws(scores)[which].astype(np.float32)
    out = scored.run(ws, limits)

    keep = scores <= limits
    order = np.argsort(~keep, kind="stable")
    assert out["kept"] == keep.sum()
    np.testing.assert_array_equal(out["sample"], order)
    for name in everything.keys() - {"sample", "kept"}:
        np.testing.assert_array_equal(out[name], everything[name][order], err_msg=name)


def test_a_sample_is_the_same_bits_in_any_row_and_company(scored: Case) -> None:
    ws = random_ws(scored.generator, 8)
    alone = scored.run(ws)
    order = np.random.default_rng(0).permutation(8)
    shuffled = scored.run(ws[torch.from_numpy(order)])
    company = random_ws(scored.generator, 8, seed=9) * 3
    company[3] = ws[6]
    accompanied = scored.run(company)
    for name in alone.keys() - {"sample", "kept"}:
        np.testing.assert_array_equal(shuffled[name], alone[name][order], err_msg=name)
        np.testing.assert_array_equal(accompanied[name][3], alone[name][6], err_msg=name)


def test_a_score_that_is_not_finite_is_seen_in_the_output(scored: Case) -> None:
    ws = random_ws(scored.generator, 3)
    ws[1] = np.nan
    out = scored.run(ws)
    by_row = dict(zip(out["sample"].tolist(), out["uncertainty"].tolist(), strict=True))
    assert np.isnan(by_row[1])
    assert np.isfinite([by_row[0], by_row[2]]).all()


def test_half_precision_is_close(scored: Case, tmp_path: Path) -> None:
    half = exported(tmp_path, 16, scored.spec, "float16")
    ws = random_ws(scored.generator, 8)
    full, out = scored.run(ws), half.run(ws)
    assert np.abs(full["image"].astype(int) - out["image"]).max() <= 4
    assert (full["mask"] == out["mask"]).mean() > 0.98
    np.testing.assert_allclose(out["uncertainty"], full["uncertainty"], rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(out["depth"], full["depth"], rtol=0.05, atol=0.01)


def test_half_precision_survives_weights_and_styles_that_overflow_it(tmp_path: Path) -> None:
    generator = random_generator(16)
    for block in generator.synthesis.blocks():
        for layer in [block.conv1] if block.is_first else [block.conv0, block.conv1]:
            layer.weight.data.mul_(3e3)  # demodulation cancels both
            layer.affine.weight.data.mul_(3e3)
    spec = LabelSpec(16, 0, 16, 16)
    ws = random_ws(generator, 3)
    images = {}
    precision: Literal["float32", "float16"]
    for precision in ("float32", "float16"):
        labeller = Labeller(generator, None, spec, precision).eval()
        with torch.no_grad():
            images[precision] = labeller(ws, torch.zeros(3))[0].int()
    assert (images["float32"] - images["float16"]).abs().max() <= 4


def test_without_an_interpreter_images_alone_are_served(tmp_path: Path) -> None:
    generator = random_generator(16)
    labeller = Labeller(generator, None, LabelSpec(16, 0, 16, 16))
    labeller_onnx(labeller, tmp_path / "labeller.onnx")
    session = open_session(tmp_path / "labeller.onnx")
    assert [o.name for o in session.get_outputs()] == ["image", "sample", "kept"]
    limits = np.array([np.inf, -np.inf, 0, -np.inf, -1e30], np.float32)
    ws = random_ws(generator, 5)
    image, sample, kept = session.run(None, {"ws": ws.numpy(), "max_uncertainty": limits})
    assert kept == 3
    assert sample.tolist() == [0, 2, 4, 1, 3]
    eager = generator.synthesis(ws[[0, 2, 4]]).image.permute(0, 2, 3, 1).detach().numpy()
    expected = np.clip(eager * 127.5 + 128, 0, 255).astype(np.uint8)
    assert np.abs(image[:3].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("pixels", [64, 512, 1 << 20])
def test_the_height_of_strips_changes_nothing(pixels: int) -> None:
    generator = random_generator(32)
    interpreter = random_interpreter(2 * sum(generator.config.channels))
    spec = LabelSpec(32, 3, 25, 32, "segmentation")
    ws, limits = random_ws(generator, 2), torch.full((2,), INFINITE)
    with torch.no_grad():
        first = Labeller(generator, interpreter, spec)
        other = Labeller(generator, interpreter, spec, strip_pixels=pixels)
        boxes = torch.zeros(2, *first.filter_inputs["boxes"].shape[1:])
        first, other = first(ws, limits, boxes), other(ws, limits, boxes)
    for a, b in zip(first, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_mapping_is_exported_untruncated(tmp_path: Path, c_dim: int) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(8, (8, 8), z_dim=6, w_dim=10, c_dim=c_dim, mapping_layers=3)
    mapping = MappingNetwork(config).eval()
    mapping_onnx(mapping, tmp_path / "mapping.onnx")
    session = open_session(tmp_path / "mapping.onnx")
    z, c = torch.randn(5, 6), torch.eye(3)[[0, 1, 2, 1, 0]]
    feed = {"z": z.numpy()} | ({"c": c.numpy()} if c_dim else {})
    expected = mapping(z, c if c_dim else None).detach().numpy()
    np.testing.assert_allclose(session.run(["w"], feed)[0], expected, rtol=1e-5, atol=1e-6)


def refused(message: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    generator = random_generator(16)
    features = 2 * sum(generator.config.channels)
    fits, other = random_interpreter(features), random_interpreter(features + 1)
    depth = random_interpreter(features, kinds=("depth",))
    spec = LabelSpec(16, 0, 16, 16, "segmentation")
    refused("32, larger than .* 16", lambda: Labeller(generator, fits, LabelSpec(32, 0, 32, 32)))
    refused(f"{features + 1} features.* {features}", lambda: Labeller(generator, other, spec))
    refused("'segmentation'; the heads are", lambda: Labeller(generator, depth, spec))
    refused("without an interpreter", lambda: Labeller(generator, None, spec))
    refused("rows 8 to 24", lambda: LabelSpec(16, 8, 16, 16))
    refused("width is 16; .* 8", lambda: LabelSpec(16, 0, 16, 16, start=(4, 2)))
    tall = LabelSpec(16, 0, 16, 8, start=(4, 2))
    refused(r"constant of \(4, 2\).* \(4, 4\)", lambda: Labeller(generator, fits, tall))
    refused("grid is 24", lambda: LabelSpec(24, 0, 16, 24))
