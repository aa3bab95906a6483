"""The bench world's command writes what the label tools read; photographs keep their place."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from examples.bench_world.__main__ import main
from examples.bench_world.nuisance import Nuisance, photographed
from examples.bench_world.render import render_sample
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set

OFF = Nuisance(0, 0, 0, 0, 0, (0, 0), (0, 0), (100, 100))


def test_a_written_set_reads_as_the_exact_labels(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "set"), "--count", "2", "--seed", "4", "--start", "7"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    images = image_set_from_folder(tmp_path / "set")
    labels = labelled_set(images)
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    for row in range(2):
        truth = render_sample(4, 7 + row)
        assert np.array_equal(images.image(row), truth.image)
        assert np.array_equal(labels.masks[row], truth.mask)
        assert np.array_equal(labels.depth[row], truth.depth)
        seen = truth.keypoints[:, 2] == 1
        assert np.array_equal(labels.keypoints[row][:, 2] == 1, seen)
        np.testing.assert_allclose(labels.keypoints[row][seen], truth.keypoints[seen], atol=0.01)
        for kind, array in (("albedo", truth.albedo), ("instances", truth.instance)):
            picture = Image.open(tmp_path / "set" / kind / f"{row:03d}.png")
            assert np.array_equal(np.array(picture), array)
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1 and "holds a set of images already" in again.output


def test_photographs_depend_on_image_seed_and_index_alone() -> None:
    image = render_sample(0, 0).image
    photograph = photographed(image, 0, 0)
    assert photograph.shape == image.shape and photograph.dtype == np.uint8
    assert np.array_equal(photograph, photographed(image, 0, 0))
    assert not np.array_equal(photograph, photographed(image, 0, 1))
    assert not np.array_equal(photograph, photographed(image, 1, 0))
    with pytest.raises(ValueError, match=r"\(4, 4\).*must be uint8 \[H, W, 3\]"):
        photographed(np.zeros((4, 4), np.uint8), 0, 0)


def test_without_any_effect_the_photograph_is_the_image() -> None:
    image = render_sample(0, 1).image
    assert np.array_equal(photographed(image, 0, 1, OFF), image)


def test_edges_keep_their_place_in_photographs() -> None:
    for index in range(3):
        image = render_sample(0, index).image.astype(float).mean(axis=2)
        photograph = (
            photographed(render_sample(0, index).image, 0, index).astype(float).mean(axis=2)
        )
        edges, found = (np.abs(np.diff(a, axis=1))[8:-8, 8:-8] for a in (image, photograph))
        moved = {
            s: np.corrcoef(edges.ravel(), np.roll(found, s, axis=1).ravel())[0, 1]
            for s in range(-3, 4)
        }
        assert max(moved, key=lambda s: moved[s]) == 0
