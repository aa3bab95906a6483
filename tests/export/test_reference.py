"""The reference that exports are compared with agrees with an independent one."""

import numpy as np
import pytest
import torch

from export.checks.reference import MAX_HYPERCOLUMN_BYTES, reference_outputs
from export.graph.spec import LabelSpec
from nets.interpreter import HeadKind
from nets.labels import Measure
from tests.export.networks import random_generator, random_interpreter, random_ws
from tests.export.reference import centroid, reference, top_mean

GENERATOR = random_generator(32)
INTERPRETER = random_interpreter(2 * sum(GENERATOR.config.channels))
WS = random_ws(GENERATOR, 2)
SCORES: tuple[tuple[HeadKind, Measure], ...] = (
    ("segmentation", "jensen_shannon"),
    ("segmentation", "entropy"),
    ("segmentation", "least_confidence"),
    ("keypoints", "jensen_shannon"),
    ("depth", "jensen_shannon"),
)


@pytest.mark.parametrize("max_bytes", [MAX_HYPERCOLUMN_BYTES, 0])
@pytest.mark.parametrize(("grid", "top", "height"), [(32, 0, 32), (16, 2, 12)])
def test_both_references_agree(grid: int, top: int, height: int, max_bytes: int) -> None:
    theirs = reference(GENERATOR, INTERPRETER, WS, grid, top, height)
    for source, measure in SCORES:
        spec = LabelSpec(
            grid, top, height, grid, source, 0.1, keypoint_window_px=2, score_measure=measure
        )
        maps = theirs.scored(spec)
        ours = reference_outputs(GENERATOR, INTERPRETER, spec, WS.numpy(), max_bytes)
        steps = ours["image"].astype(int) - theirs.image
        assert abs(steps).max() <= 1 and (steps == 0).mean() > 0.999
        clear = theirs.margin > 1e-4
        assert clear.mean() > 0.9
        assert (ours["mask"] == theirs.mask)[clear].all()
        assert np.allclose(ours["mask_margin"], theirs.margin, atol=1e-4)
        assert np.allclose(ours["depth"], theirs.depth, atol=2e-3, rtol=1e-3)
        assert np.allclose(ours["uncertainty_map"], maps, atol=1e-4, rtol=1e-3)
        for i in range(len(WS)):
            expected = top_mean(maps[i], 0.1)
            assert np.isclose(ours["uncertainty"][i], expected, atol=1e-6, rtol=1e-5)
            for k in range(3):
                points = centroid(theirs.heatmaps[i, k], 2)
                assert np.allclose(ours["keypoints"][i, k], points, atol=1e-3)


def test_pixels_of_images_that_are_not_square_are_gathered_where_they_are() -> None:
    generator = random_generator(32, start=(4, 2))
    ws = random_ws(generator, 1)
    theirs = reference(generator, INTERPRETER, ws, 16, 2, 12)
    spec = LabelSpec(16, 2, 12, 8, "segmentation", start=(4, 2))
    for max_bytes in (MAX_HYPERCOLUMN_BYTES, 0):
        ours = reference_outputs(generator, INTERPRETER, spec, ws.numpy(), max_bytes)
        assert np.allclose(ours["depth"], theirs.depth, atol=2e-3, rtol=1e-3)
        assert np.allclose(ours["uncertainty_map"], theirs.scored(spec), atol=1e-4, rtol=1e-3)


def test_without_an_interpreter_there_are_images_only() -> None:
    spec = LabelSpec(32, 0, 32, 32)
    outputs = reference_outputs(GENERATOR, None, spec, WS.numpy())
    assert list(outputs) == ["image"] and outputs["image"].shape == (2, 32, 32, 3)


def test_margins_are_small_exactly_where_a_choice_is_close() -> None:
    spec = LabelSpec(32, 0, 32, 32)
    outputs = reference_outputs(GENERATOR, INTERPRETER, spec, WS.numpy())
    assert (outputs["mask_margin"] >= 0).all() and (outputs["keypoints_margin"] >= 0).all()
    nudged = reference_outputs(
        GENERATOR, INTERPRETER, spec, (WS + 1e-6 * torch.randn(WS.shape)).numpy()
    )
    changed = outputs["mask"] != nudged["mask"]
    assert (outputs["mask_margin"][changed] < 1e-3).all()
