"""A graph that differs from the reference by more than its tolerance is never written."""

from typing import Any

import numpy as np
import pytest

from bundle.manifest import Parity
from export.checks.parity import TOLERANCES, parity_of_labeller, parity_of_mapping, refuse_excess
from export.errors import ParityError
from labelmint.predicate import Statistic

TOLERANCE = TOLERANCES["float32"]


def outputs() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(2, 250, (2, 8, 8, 3)).astype(np.uint8),
        "mask": rng.integers(0, 3, (2, 8, 8)).astype(np.uint8),
        "mask_margin": np.ones((2, 8, 8), np.float32),
        "keypoints": rng.random((2, 3, 3)).astype(np.float32),
        "keypoints_margin": np.ones((2, 3), np.float32),
        "depth": (1 + rng.random((2, 8, 8))).astype(np.float16),
        "uncertainty": np.array([0.01, 0.2], np.float32),
    }


def parity(
    reference: dict[str, Any], served: dict[str, Any], columns: tuple[Statistic, ...] = ()
) -> Parity:
    return parity_of_labeller("labeller.onnx", "test", reference, served, TOLERANCE, columns)


def test_equal_outputs_pass_with_zeros() -> None:
    measured = parity(outputs(), outputs())
    refuse_excess(measured, TOLERANCE)
    assert measured.image_max_steps == 0 and measured.mask_mismatch_share == 0
    assert measured.depth_max_relative == 0 and measured.keypoints_max_px == 0


@pytest.mark.parametrize(
    ("name", "at", "change", "field"),
    [
        ("image", (0, 1, 2, 0), 2, "image_max_steps"),
        ("mask", (1, 3, 3), 1, "mask_mismatch_share"),
        ("keypoints", (1, 2, 0), 0.02, "keypoints_max_px"),
        ("keypoints", (1, 2, 1), np.nan, "keypoints_max_px"),
        ("depth", (0, 5, 5), 0.1, "depth_max_relative"),
        ("uncertainty", (0,), 2e-6, "uncertainty_max_excess"),
        ("uncertainty", (0,), np.nan, "uncertainty_max_excess"),
    ],
)
def test_one_value_beyond_the_tolerance_is_refused(
    name: str, at: tuple[int, ...], change: float, field: str
) -> None:
    served = outputs()
    served[name][at] += np.asarray(change).astype(served[name].dtype)
    with pytest.raises(ParityError, match=f"{field} is .* is accepted; the bundle is not written"):
        refuse_excess(parity(outputs(), served), TOLERANCE)


def test_steps_of_one_are_accepted_also_across_zero() -> None:
    reference, served = outputs(), outputs()
    reference["image"][0, 0, 0, 0], served["image"][0, 0, 0, 0] = 0, 1
    reference["image"][0, 0, 0, 1], served["image"][0, 0, 0, 1] = 255, 254
    measured = parity(reference, served)
    assert measured.image_max_steps == 1
    refuse_excess(measured, TOLERANCE)


def test_only_near_ties_may_fall_to_another_class() -> None:
    reference, served = outputs(), outputs()
    served["mask"][1, 3, 3] += 1
    reference["mask_margin"][1, 3, 3] = 5e-5
    measured = parity(reference, served)
    refuse_excess(measured, TOLERANCE)
    assert measured.near_tie_share == 1 / 128
    assert (measured.mask_mismatch_share, measured.mask_difference_share) == (0, 1 / 128)


def test_only_near_peaks_may_fall_to_another_pixel() -> None:
    reference, served = outputs(), outputs()
    served["keypoints"][0, 1, 0] += 5
    reference["keypoints_margin"][0, 1] = 5e-5
    refuse_excess(parity(reference, served), TOLERANCE)


def test_a_share_of_pixels_must_be_within_one_step() -> None:
    reference, served = outputs(), outputs()
    served["image"] += 2
    measured = parity_of_labeller("x", "test", reference, served, TOLERANCES["float16"], ())
    with pytest.raises(ParityError, match="image_share_within_1 is 0"):
        refuse_excess(measured, TOLERANCES["float16"])


def test_a_mapping_that_differs_is_refused() -> None:
    w = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    refuse_excess(parity_of_mapping("mapping.onnx", "test", w, w), TOLERANCE)
    with pytest.raises(ParityError, match="w_max_difference"):
        refuse_excess(parity_of_mapping("mapping.onnx", "test", w, w * 1.001), TOLERANCE)


@pytest.mark.parametrize("column", range(11))
def test_content_that_its_own_labels_do_not_have_is_refused(column: int) -> None:
    served = outputs()
    served["uncertainty_map"] = np.ones((2, 8, 8), np.float16)
    counts = (served["mask"][..., None] == np.arange(3)).sum(axis=(1, 2))
    parts = [served["uncertainty"][:, None], counts, counts > 0, served["keypoints"][..., 2]]
    parts.append(np.sort(served["depth"].reshape(2, 64), axis=1)[:, [31]])
    columns = (Statistic("uncertainty"), *(Statistic("share", n) for n in "abc"))
    columns += tuple(Statistic("uncertainty", n) for n in "abc")
    columns += (*(Statistic("confidence", n) for n in "abc"), Statistic("depth", "0.5"))
    served["content"] = np.concatenate(parts, axis=1).astype(np.float32)
    refuse_excess(parity(outputs(), served, columns), TOLERANCE)
    served["content"][1, column] *= 1.01
    with pytest.raises(ParityError, match=r"content_excess is .*; the bundle is not written"):
        refuse_excess(parity(outputs(), served, columns), TOLERANCE)
