"""Depth scores follow the published definitions, on the pixels of the head."""

import numpy as np
import pytest

from examples.demo.scene import BACKGROUND, HAIR, SKIN, WALL_DEPTH
from examples.demo.score import score_depth

MASKS = np.full((2, 4, 4), BACKGROUND, np.uint8)
MASKS[0, 0], MASKS[1, 0, 0] = SKIN, HAIR  # five pixels of a head
TRUTH = np.where(MASKS == BACKGROUND, WALL_DEPTH, 5).astype(np.float32)


def test_errors_are_root_mean_square_and_relative() -> None:
    found = TRUTH.astype(np.float16)
    found[0, 0] = (5, 6, 4, 6.25)
    score = score_depth(found, TRUTH, MASKS)
    assert score.rmse == pytest.approx(np.sqrt((1 + 1 + 1.25**2) / 5))
    assert score.abs_rel == pytest.approx((0.2 + 0.2 + 0.25) / 5)


def test_the_wall_is_not_judged() -> None:
    found = np.where(MASKS == BACKGROUND, 0, TRUTH)
    score = score_depth(found, TRUTH, MASKS)
    assert (score.rmse, score.abs_rel) == (0, 0)


@pytest.mark.parametrize("samples", [0, 2])
def test_without_a_head_there_is_no_figure(samples: int) -> None:
    score = score_depth(TRUTH[:samples], TRUTH[:samples], np.zeros_like(MASKS[:samples]))
    assert np.isnan([score.rmse, score.abs_rel]).all()
