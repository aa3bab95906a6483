"""The studio's maps and reviews are of the measure that its ensemble and its bundle score by."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.manifest import ScoreMeasure
from bundle.open import read_manifest
from nets.labels import class_uncertainty
from studio.export_run import BUNDLE
from studio.learning import FULL_HEAT, bytes_from_uncertainty
from studio.wall import exported_manifest
from training.interpreter.predict import Prediction


def prediction(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None) -> Prediction:
    return Prediction(None, None, None, 0.0, values)


@pytest.mark.parametrize("measure", FULL_HEAT)
def test_two_classes_that_share_a_pixel_are_full_heat(measure: ScoreMeasure) -> None:
    """Half of the members say one class, and half another."""
    split = torch.tensor([[50.0, 0, -50], [0.0, 50, -50]])[:, None]
    value = class_uncertainty(split, measure).numpy()
    assert value[0] == pytest.approx(FULL_HEAT[measure], rel=1e-5)
    values = np.array([[0.0, value[0] / 2, value[0] * 1.0001, math.log(3)]], np.float32)
    heat = bytes_from_uncertainty(prediction(values), measure)
    assert heat is not None and heat.tolist() == [[0, 127, 255, 255]]
    assert bytes_from_uncertainty(prediction(None), measure) is None


def test_a_bundle_that_scores_by_another_measure_is_not_the_reviewed_one(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / BUNDLE)
    weights = read_manifest(tmp_path / BUNDLE).weights
    assert weights is not None and weights.interpreter_sha256 is not None
    sha256 = weights.interpreter_sha256
    assert exported_manifest(tmp_path, sha256, "jensen_shannon") is not None
    assert exported_manifest(tmp_path, sha256, "entropy") is None
    assert exported_manifest(tmp_path, "0" * 64, "jensen_shannon") is None
