"""A view bank of the demo covers its exact cameras and stores them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from checkpoints import generator_from_file
from examples.demo import scene
from examples.demo.cameras import cameras_of_draws
from nets.generator import Generator
from training.views.bank import Spread, ViewsConfig, bank_from_cameras, bank_from_draws, directions
from training.views.cameras import cameras_from_file, write_cameras

WEIGHTS = Path(scene.__file__).parent / "generator.safetensors"
CONFIG = ViewsConfig(view_layers=4, psi=1.0, cutoff=10, count=8)
CANDIDATES = 48
CAMERAS = cameras_of_draws(CONFIG.seed, CANDIDATES)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return generator_from_file(WEIGHTS)[0]


def worst_angle_deg(rows: NDArray[np.int64]) -> float:
    """Largest angle from a camera of other draws to the nearest of these."""
    others = directions(cameras_of_draws(999, 2000))
    cosines = others @ directions(CAMERAS)[rows].T
    return float(np.degrees(np.arccos(cosines.clip(-1, 1))).min(axis=1).max())


def test_cameras_come_back_and_do_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    write_cameras(tmp_path / "c.csv", cameras_of_draws(CONFIG.seed, 9))
    assert cameras_from_file(tmp_path / "c.csv", "any") == CAMERAS[:9]
    azimuths = np.array([camera.azimuth_deg for camera in CAMERAS])
    assert abs(azimuths).max() <= 60 and azimuths.min() < -40 and azimuths.max() > 40


def test_views_that_look_least_alike_cover_the_cameras_as_measured_ones_do(
    generator: Generator,
) -> None:
    measured = worst_angle_deg(bank_from_cameras(generator, CONFIG, CAMERAS).rows)
    spread: dict[Spread, float] = {
        name: worst_angle_deg(bank_from_draws(generator, CONFIG, CANDIDATES, name).rows)
        for name in ("images", "w")
    }
    assert spread["images"] < 1.25 * measured
    assert spread["images"] < 0.8 * spread["w"]
