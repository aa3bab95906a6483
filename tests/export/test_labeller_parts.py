"""Modules of the labeller compute the same as the formulas that they replace."""

import itertools
import warnings
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bundle.content import rank_of_share
from export.graph.ensemble import Consensus, mean_and_variance
from export.graph.filter import BISECTIONS, HALVINGS, kept_first, top_mean, values_of_ranks
from export.graph.label_branch import fitting_tile
from export.graph.labeller import Labeller, Precision
from export.graph.spec import LabelSpec
from export.graph.stylegan1 import ServedDoubling
from export.graph.stylegan2 import ServedSynthesis, UpConvolution
from export.graph.tiles import node_weights, padded_reads, tile_pixels, tile_reads
from nets.config import size_at
from nets.features import Resize, hypercolumn
from nets.labels import Measure
from nets.ops import modulated_conv2d, resample_kernel
from nets.stylegan1 import FUSED_FROM, DoublingConv
from tests.export.networks import random_generator, random_interpreter, random_ws
from tests.export.reference import MEASURES, literal_synthesis


@pytest.mark.parametrize(
    ("grid", "tile"), [(32, 8), (64, 8), (64, 4), (64, 16), (128, 8), (16, 16)]
)
@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize("squares", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("start", [(4, 4), (4, 2), (3, 5)])
def test_tiles_are_the_direct_resize_of_every_level(
    grid: int, tile: int, resize: Resize, squares: tuple[int, int], start: tuple[int, int]
) -> None:
    extents = tuple(r for r in (4, 8, 16, 32, 64) if r < grid)
    size = size_at(grid, start)
    tile = fitting_tile(tile, size)
    down, across = (
        count if side % (tile * count) == 0 else 1
        for count, side in zip(squares, size, strict=True)
    )
    reads = tile_reads(extents, grid, tile, resize, squares=(down, across), start=start)
    torch.manual_seed(0)
    levels = {r: torch.randn(1, 1, *size_at(r, start), dtype=torch.float64) for r in extents}
    expected = sum(hypercolumn([x], size, resize) for x in levels.values())
    assert isinstance(expected, Tensor)
    table = [levels[r].reshape(-1).numpy() for r in reads.direct]
    if reads.merged:
        sums = []
        for r in reads.merged:
            height, width = size_at(r, start)
            rows_of_nodes = node_weights(height, size[0], tile, resize)
            columns_of_nodes = node_weights(width, size[1], tile, resize)
            sums.append(rows_of_nodes @ levels[r][0, 0].numpy() @ columns_of_nodes.T)
        assert sums[0].shape == reads.nodes
        table.append(sum(sums).ravel())
    values = np.concatenate(table)[reads.indices] @ reads.weights.T
    rows, columns = values.shape[:2]
    pixels = values.reshape(rows, columns, down * tile, across * tile).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(pixels.reshape(size), expected[0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize(("extents", "k"), [((4, 8, 16, 32), 72), ((8, 16), 32), ((16,), 16)])
def test_padding_of_reads_changes_no_pixel(extents: tuple[int, ...], k: int) -> None:
    reads = tile_reads(extents, 64, 8)
    padded = padded_reads(reads, 8)
    assert padded.weights.shape == (64, k) and padded.indices.shape == (8, 8, k)
    rows = sum(r * r for r in reads.direct) + (prod(reads.nodes) if reads.merged else 0)
    table = np.random.default_rng(0).normal(size=rows)
    np.testing.assert_allclose(
        table[padded.indices] @ padded.weights.T, table[reads.indices] @ reads.weights.T, atol=1e-12
    )


def test_only_the_half_branch_reads_padded_tiles() -> None:
    generator = random_generator(64)
    interpreter = random_interpreter(2 * sum(generator.config.channels))
    spec = LabelSpec(64, 0, 64, 64)
    sizes: dict[Precision, int] = {"float32": 65, "float16": 72}
    for precision, k in sizes.items():
        labels = Labeller(generator, interpreter, spec, precision).labels
        assert labels is not None and labels.weights.shape == (64, k)
        assert not labels.weights[:, 65:].any()


def test_the_pixels_of_tiles_are_those_of_the_grid() -> None:
    grid = np.arange(64).reshape(8, 8)
    np.testing.assert_array_equal(tile_pixels((8, 8), 4)[1, 0], grid[4:, :4].ravel())
    np.testing.assert_array_equal(np.sort(tile_pixels((8, 8), 4), axis=None), np.arange(64))


def test_an_up_convolution_is_the_literal_one_borders_included() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 6, 6).double(), torch.randn(4, 5, 3, 3).double()
    fir = resample_kernel().double() + torch.rand(4, 4).double()  # asymmetric: shows any flip
    expected = modulated_conv2d(
        x, weight, torch.ones(2, 5).double(), demodulate=False, up_kernel=fir
    )
    torch.testing.assert_close(UpConvolution(weight, fir, torch.float64)(x), expected)


@pytest.mark.parametrize("resolution", [FUSED_FROM // 2, FUSED_FROM])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float16, 2e-2)])
def test_either_way_of_doubling_is_the_literal_one_in_both_graphs(
    resolution: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    conv = DoublingConv(3, 4, resolution).double()
    conv.bias.data.normal_()
    conv.blur_kernel.uniform_()  # asymmetric: shows any flip
    x = torch.randn(2, 3, resolution // 2, resolution // 2).double()
    served = ServedDoubling(conv, dtype).double()
    torch.testing.assert_close(served(x), conv(x), rtol=tolerance, atol=tolerance)


def test_served_synthesis_is_the_papers() -> None:
    generator = random_generator(32)
    ws = random_ws(generator, 3)
    image, taps = ServedSynthesis(generator.synthesis, torch.float32)(ws)
    expected, expected_taps = literal_synthesis(generator, ws)
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-4)
    for tap, other in zip(taps, expected_taps[1:], strict=True):
        torch.testing.assert_close(tap, other, atol=1e-4, rtol=1e-4)


rows = st.lists(st.floats(0, 1, width=32), min_size=10, max_size=60)


@given(rows, st.sampled_from([1.0, 1e-6, 0.7]), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_bisection_is_the_mean_of_the_top(values: list[float], scale: float, share: float) -> None:
    x = torch.tensor([values]) * scale
    count = max(1, int(x.shape[1] * share))
    expected = x.double().sort(descending=True).values[:, :count].mean(dim=1)
    torch.testing.assert_close(top_mean(x, count).double(), expected, atol=1e-6 * scale, rtol=1e-6)


@pytest.mark.parametrize("power", [0, 1, 8])
def test_bisection_is_exact_enough_where_pixels_crowd(power: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 1 << 16) ** power * 0.3  # 0: a plateau, the hardest to bracket
    x[:, 0] = 0.7
    expected = x.double().sort(descending=True).values[:, :6553].mean(dim=1)
    torch.testing.assert_close(top_mean(x, 6553).double(), expected, atol=2e-7, rtol=1e-6)


def bisection_by_selection(x: Tensor, count: int) -> Tensor:
    """`top_mean` as it was before: TensorRT compiles its chain of selections in exponential time,
    and may replace total * 0 by 0."""
    bracket = x.amax(dim=1, keepdim=True).clamp(min=0)
    low = bracket * 0
    for _ in range(BISECTIONS):
        bracket = bracket * 0.5
        middle = low + bracket
        above = (x > middle).to(x.dtype).sum(dim=1, keepdim=True)
        low = torch.where(above > count, middle, low)
    high = low + bracket
    total = x.sum(dim=1)
    score = high[:, 0] + torch.relu(x - high).sum(dim=1) / count
    return torch.minimum(score, total / count) + total * 0


def test_bisection_without_selection_is_the_same_bits() -> None:
    draws = torch.Generator().manual_seed(0)
    for number in range(300):
        pixels = int(torch.randint(1, 400, (), generator=draws))
        x = torch.rand(6, pixels, generator=draws)
        scale = 10.0 ** float(torch.randint(-38, 35, (), generator=draws))
        x[0] = 0
        x[1] = x[1, 0]  # all equal
        x[2] = (x[2] * 4).floor() / 4  # ties
        x[3] = torch.where(x[3] > 0.9, x[3], 0)
        x[4] = x[4] - 1e-7  # a divergence may be just under 0
        x = x * (1 if number % 3 == 0 else scale)
        count = int(torch.randint(1, pixels + 1, (), generator=draws))
        scores = top_mean(x, count)
        assert torch.isfinite(scores).all()
        assert torch.equal(scores, bisection_by_selection(x, count)), (number, scale, count)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_pixel_that_is_not_finite_makes_the_score_not_finite(bad: float) -> None:
    for count, place in itertools.product((1, 7, 50), (0, 31, 49)):
        x = torch.rand(3, 50)
        x[1, place] = bad
        assert torch.isfinite(top_mean(x, count)).tolist() == [True, False, True]
    for members in ([x[:, :, None]], [x[:, :, None], torch.rand(3, 50, 1)]):
        finite = torch.isfinite(top_mean(mean_and_variance(members)[1], 7))
        assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("pixels", [1, 2, 15, 70])
@pytest.mark.parametrize("spread", [0, 1e-3, 1, 6e4])
def test_a_quantile_is_at_least_the_value_and_within_a_halving(pixels: int, spread: float) -> None:
    x = 2.5 + spread * torch.randn(3, pixels)
    ranks = torch.tensor([rank_of_share(share, pixels) for share in (0.1, 0.5, 0.9, 1.0)])
    over = values_of_ranks(x, ranks) - x.sort(dim=1).values[:, ranks - 1]
    allowed = (x.amax(dim=1) - x.amin(dim=1)) * 2**-HALVINGS + 1e-6 * x.abs().amax(dim=1)
    assert (over >= -1e-6 * x.abs().amax()).all() and (over <= allowed[:, None]).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_depth_that_is_not_finite_makes_no_quantile_finite(bad: float, tmp_path: Path) -> None:
    """In ONNX Runtime, whose smallest and largest value pass over NaN."""
    file = tmp_path / "quantiles.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter itself
        torch.onnx.export(
            Quantiles(), (torch.zeros(3, 16),), file, dynamo=False, opset_version=17,
            input_names=["x"],
        )  # fmt: skip
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    for place in (0, 7, 15):
        x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
        x[1, place] = bad
        (found,) = session.run(None, {"x": x})
        assert np.isfinite(found).tolist() == [[True] * 2, [False] * 2, [True] * 2]


class Quantiles(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return values_of_ranks(x, torch.tensor([2.0, 15.0]))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_partition_is_the_stable_sort(keep: list[bool]) -> None:
    sample, kept = kept_first(torch.tensor(keep, dtype=torch.float32))
    assert sample.tolist() == sorted(range(len(keep)), key=lambda i: not keep[i])
    assert int(kept) == sum(keep)


def test_ties_go_to_the_smallest_class_id() -> None:
    first, second = torch.tensor([[[0.0, 9, 0, 0]]]), torch.tensor([[[0.0, 0, 0, 9]]])
    consensus = Consensus(4)
    assert consensus([first, second], False)[0].item() == 1
    assert consensus([second, first], False)[0].item() == 1
    assert consensus([second, first, second], False)[0].item() == 3


def test_a_unanimous_pixel_has_the_releases_rest_of_a_divergence() -> None:
    logits = torch.tensor([[[200.0, 0, 0]]])
    _, divergence = Consensus(3)([logits] * 4, True)
    assert divergence is not None
    assert divergence.item() == pytest.approx(1.1920929e-7, rel=1e-3)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("spread", [0.01, 1, 30])
def test_uncertainty_is_the_formula(spread: float, measure: Measure) -> None:
    """The divergence is that of the release."""
    torch.manual_seed(0)
    members = torch.randn(10, 1, 500, 6) * spread
    _, uncertainty = Consensus(6, measure)(members, True)
    assert uncertainty is not None
    expected = MEASURES[measure](members[:, 0].double())
    torch.testing.assert_close(uncertainty[0].double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("gap", [0, 14, 88, 200, 1e4])
def test_uncertainty_of_certain_members_is_finite_and_the_formula(
    gap: float, measure: Measure
) -> None:
    torch.manual_seed(0)
    best = torch.randint(6, (10, 1, 500))
    best[:, :, 250:] = best[0, :, 250:]  # all members agree on the second half
    members = F.one_hot(best, 6) * gap + torch.randn(10, 1, 500, 6)
    _, uncertainty = Consensus(6, measure)(members, True)
    assert uncertainty is not None
    expected = MEASURES[measure](members[:, 0].double())
    torch.testing.assert_close(uncertainty[0].double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_uncertainty_stays_in_its_range(measure: Measure) -> None:
    """0 where all members agree with certainty; at most what nets.labels says, where they share
    their votes evenly."""
    even = torch.eye(4).repeat(2, 1)[:, None, None] * 100.0  # 8 members, 4 classes
    agreed = torch.eye(4)[2].expand(8, 1, 1, 4) * 100.0
    most = {"jensen_shannon": np.log(4), "entropy": np.log(4), "least_confidence": 0.75}
    for members, expected in ((even, most[measure]), (agreed, 0)):
        _, uncertainty = Consensus(4, measure)(members, True)
        assert uncertainty is not None
        assert uncertainty.item() == pytest.approx(expected, abs=2e-7, rel=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_logit_that_is_no_number_reaches_the_uncertainty(measure: Measure) -> None:
    members = torch.randn(3, 1, 20, 5)
    members[1, 0, 7, 2] = torch.nan
    _, uncertainty = Consensus(5, measure)(members, True)
    assert uncertainty is not None
    assert (~uncertainty[0].isfinite()).nonzero().tolist() == [[7]]


@pytest.mark.parametrize("members", [1, 2, 7])
def test_variance_does_not_cancel(members: int) -> None:
    torch.manual_seed(0)
    values = 1000 + torch.randn(members, 2, 50, 3)
    mean, variance = mean_and_variance(values)
    torch.testing.assert_close(mean, values.mean(dim=0))
    expected = values.double().var(dim=0, correction=0).mean(dim=-1)
    torch.testing.assert_close(variance.double(), expected, rtol=1e-3, atol=1e-4)
