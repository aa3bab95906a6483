"""Multi-view sets are the stream's samples, squared, and what cannot be learnt from is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bundle.open import Bundle
from engines.fake import fake_bundle
from labelmint import Client
from labelmint.model import Camera
from nets.textured import Cameras
from tests.service.harness import FakeModel, served
from training.errors import TrainingError
from training.inverse_graphics.command import radius_of_sets
from training.inverse_graphics.object_sets import (
    ObjectSets,
    SetsConfig,
    cameras_of_bank,
    codes_of_objects,
    on_square,
    points_on_square,
    sets_from_service,
)

ASKED = SetsConfig(objects=6, views=3, extent=16, background=(), seed=4)
BANK = fake_bundle(resolution=16, view_codes=5, view_layers=4)


@pytest.mark.parametrize("views", [1, 2, 3, 4, 5])
def test_views_of_an_object_lie_evenly_in_the_bank_and_differ_between_objects(views: int) -> None:
    codes = codes_of_objects(40, views, 5, seed=1)
    assert codes.shape == (40, views) and (np.diff(codes, axis=1) > 0).all()
    assert codes.min() >= 0 and set(codes.ravel().tolist()) == set(range(5))
    gaps = np.diff(np.concatenate([codes, codes[:, :1] + 5], axis=1), axis=1)
    assert gaps.max() - gaps.min() <= 1
    assert np.array_equal(codes, codes_of_objects(40, views, 5, seed=1))


@pytest.mark.parametrize("views", [1, 3, None])
def test_sets_are_the_streams_samples(views: int | None) -> None:
    with served([FakeModel(bundle=BANK)]) as server:
        target = f"127.0.0.1:{server.server.port}"
        sets, model = sets_from_service(target, replace(ASKED, views=views))
        with Client(target) as client:
            (batch,) = client.stream(30, seed=4, count=30, views_per_object=5)
    assert model.view_bank and sets.codes.shape == (6, views or 4)
    assert batch.images is not None and batch.masks is not None and batch.keypoints is not None
    rows = torch.arange(6)[:, None] * 5 + sets.codes
    images = torch.from_numpy(batch.images.copy()).permute(0, 3, 1, 2)[rows]
    assert torch.equal(sets.images, images)
    assert torch.equal(sets.silhouettes == 255, torch.from_numpy(batch.masks.copy())[rows] != 0)
    assert sets.keypoints is not None
    points = torch.from_numpy(batch.keypoints.copy())[rows]
    torch.testing.assert_close(sets.keypoints[..., :2] * 16 + 8, points[..., :2])
    assert torch.equal(sets.keypoints[..., 2], points[..., 2])


def test_classes_named_as_background_are_no_object() -> None:
    with served([FakeModel(bundle=BANK)]) as server:
        target = f"127.0.0.1:{server.server.port}"
        names = [c.name for c in sets_from_service(target, ASKED)[1].classes]
        all_of_it, _ = sets_from_service(target, replace(ASKED, background=tuple(names)))
    assert not all_of_it.silhouettes.any()
    with pytest.raises(TrainingError, match="anything but background"):
        radius_of_sets(all_of_it, cameras())


@pytest.mark.parametrize(
    ("bundle", "asked", "words"),
    [
        (fake_bundle(resolution=16), ASKED, ["no view bank", "--views"]),
        (BANK, replace(ASKED, views=6), ["--views is 6", "4 with an azimuth"]),
        (
            BANK,
            replace(ASKED, background=("sky",)),
            ["--background sky", "not among its classes"],
        ),
        (fake_bundle(resolution=16, heads=False, view_codes=5), ASKED, ["no masks"]),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(
    bundle: Bundle, asked: SetsConfig, words: list[str]
) -> None:
    with served([FakeModel(bundle=bundle)]) as server, pytest.raises(TrainingError) as refused:
        sets_from_service(f"127.0.0.1:{server.server.port}", asked)
    said = str(refused.value)
    assert "\n" not in said and all(word in said for word in ["--source", *words])


def test_other_extents_lie_in_the_middle_of_a_square_and_keypoints_with_them() -> None:
    wide = torch.full((2, 3, 6, 10), 200, dtype=torch.uint8)
    square = on_square(wide, 10)
    assert torch.equal(square[:, :, 2:8], wide)
    assert not square[:, :, :2].any() and not square[:, :, 8:].any()
    half = on_square(wide, 5)
    assert half.shape == (2, 3, 5, 5) and half[0, 0, 2, 2] == 200 and half[0, 0, 0, 2] < 100
    corner = points_on_square(torch.tensor([[0.0, 0.0, 0.7], [10.0, 6.0, 0.2]]), (6, 10))
    expected = torch.tensor([[-0.5, -0.3, 0.7], [0.5, 0.3, 0.2]])
    torch.testing.assert_close(corner, expected)


def test_views_without_an_azimuth_are_left_out() -> None:
    """The last one of the fake bank's five."""
    with served([FakeModel(bundle=BANK)]) as server:
        target = f"127.0.0.1:{server.server.port}"
        sets, _ = sets_from_service(target, replace(ASKED, views=None))
        with pytest.raises(TrainingError, match="--views is 5; its bank has 4 with an azimuth"):
            sets_from_service(target, replace(ASKED, views=5))
    assert torch.equal(sets.codes, torch.arange(4).expand(6, 4))
    with served([FakeModel(bundle=fake_bundle(resolution=16, view_codes=1))]) as server:
        target = f"127.0.0.1:{server.server.port}"
        with pytest.raises(TrainingError, match="no view of its bank has an azimuth"):
            sets_from_service(target, ASKED)


def test_what_is_unknown_of_a_camera_is_declared() -> None:
    with served([FakeModel(bundle=BANK)]) as server:
        model = sets_from_service(f"127.0.0.1:{server.server.port}", ASKED)[1]
    nan = math.nan
    bank = replace(model, view_bank=(Camera(90, nan, nan, 3), Camera(-90, 45, 7, nan)))
    found = cameras_of_bank(bank, 6.0, 2.4)
    torch.testing.assert_close(found.azimuth, torch.tensor([math.pi / 2, -math.pi / 2]))
    torch.testing.assert_close(found.elevation, torch.tensor([0.0, math.pi / 4]))
    assert found.distance.tolist() == [6, 7]
    assert found.focal.tolist() == [3, pytest.approx(2.4)]


def test_the_sphere_is_as_large_as_the_silhouettes() -> None:
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    disc = ((x.square() + y.square()).sqrt() < 16).to(torch.uint8) * 255
    sets = ObjectSets(
        torch.zeros(2, 1, 3, 64, 64, dtype=torch.uint8), disc.expand(2, 1, 64, 64),
        torch.zeros(2, 1, dtype=torch.int64), None,
    )  # fmt: skip
    assert radius_of_sets(sets, cameras()) == pytest.approx(0.25 * 6 / 2.4, rel=0.02)


def cameras() -> Cameras:
    one = torch.ones(5)
    return Cameras(0 * one, 0 * one, 6 * one, 2.4 * one)
