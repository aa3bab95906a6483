"""The fused kernel, run by Triton's interpreter, gives the labels of the label branch."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.kernel_run import device_buffers, run_launches
from export.fused.graphs import fused_branch
from export.fused.launches import LaunchList, Tuning
from export.fused.tiles import slabs
from export.graph.label_branch import LabelBranch, PixelLabels
from export.graph.labeller import constant_tap, level_channels, served_synthesis
from export.graph.spec import LabelSpec
from nets.interpreter import Interpreter
from nets.labels import Measure
from tests.export.networks import random_generator, random_interpreter, random_ws

GRID = 64
# Few tiles, because the interpreter's time grows with their number.
LARGE = Tuning(squares=(4, 4), chunk=16)
CLASSES: dict[str, object] = {"kinds": ("segmentation",)}


@dataclass
class Case:
    """Taps of two samples, and an interpreter to label them."""

    interpreter: Interpreter
    spec: LabelSpec
    taps: list[Tensor]
    const_tap: Tensor
    channels: dict[int, int]

    def branch(self) -> PixelLabels:
        """The reference, in float32."""
        args = (self.interpreter, self.spec, self.const_tap, self.channels, torch.float32)
        with torch.no_grad():
            labels: PixelLabels = LabelBranch(*args)(self.taps)
        return labels

    def kernels(self, tuning: Tuning) -> tuple[LaunchList, dict[str, Tensor]]:
        """The launches, and the buffers after them; buffers that they write are NaN before."""
        launches, graph = fused_branch(
            self.interpreter, self.spec, self.const_tap, self.channels, tuning
        )
        args = (self.interpreter, self.spec, self.const_tap, self.channels, torch.float16)
        branch = LabelBranch(*args)
        with torch.no_grad():
            levels = [level.half() for level in branch.levels(self.taps)]
            buffers = device_buffers(
                launches, graph(dict(zip(branch.extents, levels, strict=True)))
            )
        for name, buffer in launches.buffers.items():
            if buffer.kind in ("labels", "scratch"):
                buffers[name].fill_(torch.nan)
        run_launches(launches, buffers, len(self.taps[0]))
        return launches, buffers


def case(spec: LabelSpec, seed: int = 0, **given: object) -> Case:
    generator = random_generator(GRID, seed)
    interpreter = random_interpreter(generator.config.features, **given)  # type: ignore[arg-type]
    with torch.no_grad():
        _, taps = served_synthesis(generator, torch.float32)(random_ws(generator, 2))
    channels = level_channels(generator, GRID)
    return Case(interpreter, spec, taps, constant_tap(generator), channels)


@pytest.mark.long
@pytest.mark.parametrize(
    ("spec", "tuning", "given"),
    [
        # Two slabs of reads, several bands, a crop within tiles.
        (
            LabelSpec(GRID, 9, 50, GRID, "segmentation"),
            Tuning(squares=(2, 2), chunk=16, band_tiles=8),
            {"members": 2},
        ),
        (LabelSpec(GRID, 0, GRID, GRID, "depth", resize="nearest"), LARGE, {}),
        (LabelSpec(GRID, 0, GRID, GRID, "keypoints"), LARGE, {}),
        (LabelSpec(GRID, 0, GRID, GRID, "segmentation", score_measure="entropy"), LARGE, CLASSES),
        (
            LabelSpec(GRID, 0, GRID, GRID, "segmentation", score_measure="least_confidence"),
            LARGE,
            CLASSES,
        ),
    ],
    ids=["crop in bands", "nearest, depth scores", "keypoints score", "entropy", "least"],
)
def test_labels_and_scores_are_those_of_the_branch(
    spec: LabelSpec, tuning: Tuning, given: dict[str, object]
) -> None:
    labelled = case(spec, 0, **given)
    launches, buffers = labelled.kernels(tuning)
    expected = labelled.branch()
    assert expected.mask is not None and expected.uncertainty is not None
    differs = buffers["segmentation_labels"][:, 0] != expected.mask
    assert differs.float().mean() < 2e-3
    score = expected.uncertainty
    torch.testing.assert_close(buffers["scores"], score, atol=2e-3 * float(score.max()), rtol=5e-3)
    planes = {"keypoints": expected.heatmaps, "depth": expected.depth}
    assert any(values is None for values in planes.values()) == (given is CLASSES)
    for name, values in planes.items():
        if values is not None:
            found = buffers[f"{name}_labels"].reshape(values.shape)
            near = 4e-3 * float(values.abs().max())
            torch.testing.assert_close(found, values, atol=near, rtol=0)
    bands = {launch.arguments[-2] for launch in launches.launches if "label" in launch.kernel}
    assert (len(bands) > 1) == (tuning is not LARGE)


@pytest.mark.long
def test_widths_that_are_no_power_of_two_are_padded_with_what_adds_nothing() -> None:
    """36 and 20 hidden units, the first in chunks; channels that the kernels cannot take."""
    given = case(
        LabelSpec(GRID, 0, GRID, GRID, "segmentation"), kinds=("segmentation",), hidden=(36, 20)
    )
    launches, buffers = given.kernels(LARGE)
    kernel = launches.kernels[launches.launches[-1].kernel]
    assert (kernel.constants["H1"], kernel.constants["H2"], kernel.constants["CHUNK"]) == (
        64,
        32,
        16,
    )
    assert given.channels[32] == 24 and buffers["level_32"].shape[2] == 32
    expected = given.branch()
    assert expected.mask is not None and expected.uncertainty is not None
    differs = buffers["segmentation_labels"][:, 0] != expected.mask
    assert differs.float().mean() < 2e-3
    torch.testing.assert_close(buffers["scores"], expected.uncertainty, atol=2e-3, rtol=5e-3)


@pytest.mark.long
def test_a_tie_of_the_members_goes_to_the_smallest_class() -> None:
    given = case(LabelSpec(GRID, 0, GRID, GRID, "segmentation"), members=2, kinds=("segmentation",))
    head = given.interpreter.head("segmentation")
    head.weight3.data.zero_()
    head.norm2.bias.data.zero_()
    head.bias3.data.zero_()
    head.bias3.data[0, 0, 5] = head.bias3.data[1, 0, 2] = 9
    _, buffers = given.kernels(LARGE)
    assert (buffers["segmentation_labels"] == 2).all()
    torch.testing.assert_close(buffers["scores"], given.branch().uncertainty, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("level", "measure"),
    [
        (-1, "jensen_shannon"),
        pytest.param(1, "jensen_shannon", marks=pytest.mark.long),
        pytest.param(-1, "entropy", marks=pytest.mark.long),
        pytest.param(-1, "least_confidence", marks=pytest.mark.long),
    ],
)
def test_a_feature_that_is_no_number_reaches_the_score(level: int, measure: Measure) -> None:
    """The score is NaN at the pixels that read the feature, so the filter refuses the batch."""
    spec = LabelSpec(GRID, 0, GRID, GRID, "segmentation", score_measure=measure)
    given = case(spec, kinds=("segmentation",))
    given.taps[level][1, 0, 3, 2] = torch.nan
    _, buffers = given.kernels(LARGE)
    score = buffers["scores"]
    assert score[0].isfinite().all()
    assert score[1].isnan().any()


@given(st.integers(1, 3000))
def test_slabs_hold_what_they_are_for_and_waste_little(count: int) -> None:
    first, second = slabs(count)
    assert first + second >= max(count, 16)
    assert first & (first - 1) == 0 and second & (second - 1) == 0
    assert second == 0 or (16 <= second < first)
    assert first + second <= max(16, 1.5 * count + 16)


def test_a_grid_without_room_for_a_tile_is_refused() -> None:
    generator = random_generator(32)
    interpreter = random_interpreter(generator.config.features)
    channels = level_channels(generator, 32)
    spec = LabelSpec(32, 0, 32, 32, "segmentation")
    with pytest.raises(ValueError, match="grid is 32; these tiles need at least 64"):
        fused_branch(interpreter, spec, constant_tap(generator), channels, Tuning())
