"""Thresholds: as many samples pass as were asked for, the same number on every replica."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import NotCalibrated
from bundle.calibration import calibration_for, shortest_float32, threshold_for
from bundle.manifest import SamplingKey, ScoreCalibration
from engines.fake import fake_bundle
from export.checks.calibration import quantiles_from_scores

KEY = SamplingKey(
    latent_source="philox",
    truncation_psi=0.7,
    truncation_cutoff=8,
    class_index=None,
    views_per_object=1,
)


def calibration(quantiles: list[float]) -> ScoreCalibration:
    return ScoreCalibration(options=KEY, seed=0, samples=4096, quantiles=quantiles)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9, 0.999])
def test_the_threshold_keeps_the_share_that_was_asked_for(fraction: float) -> None:
    scores = np.random.default_rng(1).gamma(2, 0.05, 4096).astype(np.float32)
    threshold = threshold_for(calibration(quantiles_from_scores(scores)), fraction)
    assert abs((scores <= threshold).mean() - fraction) <= 1 / 1024


def test_thresholds_between_quantiles_are_interpolated() -> None:
    assert threshold_for(calibration([1.0, 2.0, 4.0]), 0.75) == 3.0
    assert threshold_for(calibration([1.0, 2.0, 4.0]), 0.5) == 2.0


def test_keeping_everything_keeps_scores_never_seen_before() -> None:
    assert threshold_for(calibration([1.0, 2.0]), 1) == math.inf


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
        threshold_for(calibration([1.0, 2.0]), fraction)


@given(st.floats(0.0001, 1), st.lists(st.floats(0, 10, width=32), min_size=2, max_size=9))
def test_thresholds_are_float32_and_within_the_quantiles(f: float, values: list[float]) -> None:
    quantiles = sorted(values)
    threshold = threshold_for(calibration(quantiles), f)
    assert threshold == np.float32(threshold)
    assert f == 1 or quantiles[0] <= threshold <= quantiles[-1]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_is_the_same_float32(value: float) -> None:
    assert np.float32(shortest_float32(value)) == np.float32(value)


def test_the_shortest_decimal_is_what_people_write() -> None:
    assert [shortest_float32(float(np.float32(x))) for x in (0.7, 0.1, 1, 2 / 3)] == [
        0.7,
        0.1,
        1.0,
        0.6666667,
    ]


def test_without_a_calibration_the_message_is_the_command() -> None:
    manifest = fake_bundle().manifest
    key = msgspec.structs.replace(KEY, class_index=3, views_per_object=4, latent_source="mt19937")
    with pytest.raises(NotCalibrated) as caught:
        calibration_for(manifest, key, Path("/bundles/a b"))
    command = "python -m export calibrate '/bundles/a b' --samples 4096 --psi 0.7 --cutoff 8 "
    assert command + "--class 3 --views 4 --latents mt19937" in str(caught.value)


def test_every_option_of_the_key_matters() -> None:
    manifest = fake_bundle().manifest
    known = manifest.calibrations[0].options
    assert calibration_for(manifest, known, Path("b")) == manifest.calibrations[0]
    for field, other in {
        "latent_source": "mt19937",
        "truncation_psi": 0.5,
        "truncation_cutoff": 3,
        "class_index": 0,
        "views_per_object": 2,
    }.items():
        with pytest.raises(NotCalibrated):
            calibration_for(manifest, msgspec.structs.replace(known, **{field: other}), Path("b"))
