"""Calibration scores the samples the service would draw, and states them exactly."""

import numpy as np
import pytest

from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.fake import fake_bundle
from export.calibrate import (
    calibration_from_engine,
    quantiles_from_scores,
    scores_from_engine,
)
from export.errors import ExportError

BUNDLE = fake_bundle()
FAKE = EngineOptions(runtime="fake", batch_sizes=(8,))
GENERATOR = BUNDLE.manifest.generator


def test_scores_are_those_of_indices_from_0_in_any_batch() -> None:
    options = default_options(GENERATOR, seed=5)
    mapping, engine = open_mapping(BUNDLE, FAKE), open_engine(BUNDLE, FAKE)
    scores = scores_from_engine(BUNDLE, engine, mapping, options, 21)
    for i in range(21):
        ws = ws_from_indices(mapping, GENERATOR, options, [i])
        alone = engine.run(ws, np.full(1, np.inf, np.float32), ("uncertainty",))
        assert scores[i] == alone.arrays["uncertainty"][0]


def test_a_calibration_states_its_samples() -> None:
    options = default_options(GENERATOR, seed=5)
    mapping, engine = open_mapping(BUNDLE, FAKE), open_engine(BUNDLE, FAKE)
    calibration = calibration_from_engine(BUNDLE, engine, mapping, options, 64)
    assert (calibration.seed, calibration.samples) == (5, 64)
    assert calibration.options.views_per_object == 1


def test_4096_samples_give_1025_levels_from_least_to_largest() -> None:
    scores = np.random.default_rng(0).random(4096, np.float32)
    quantiles = quantiles_from_scores(scores)
    assert len(quantiles) == 1025 and quantiles == sorted(quantiles)
    assert np.float32(quantiles[0]) == scores.min()
    assert np.float32(quantiles[-1]) == scores.max()


def test_bundles_without_a_score_are_refused() -> None:
    images = fake_bundle(heads=False)
    mapping, engine = open_mapping(images, FAKE), open_engine(images, FAKE)
    with pytest.raises(ExportError, match="no score_source"):
        calibration_from_engine(images, engine, mapping, default_options(GENERATOR), 64)
