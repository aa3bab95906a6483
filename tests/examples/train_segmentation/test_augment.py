"""Augmentation transforms image, mask and keypoints in the same way."""

from dataclasses import replace

import torch
from torch import Tensor

from examples.demo.render import render
from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES
from examples.train_segmentation.augment import (
    MIRRORED_KEYPOINTS,
    Variation,
    moved_by,
    random_maps,
    varied,
)
from examples.train_segmentation.samples import (
    Samples,
    bytes_from_colors,
    rendered,
)
from tests.examples.test_scene import scenes
from tests.examples.train_segmentation.drawn import SMALL, generator


def test_left_and_right_change_places_in_a_mirror() -> None:
    swapped = [KEYPOINT_NAMES[i] for i in MIRRORED_KEYPOINTS]
    assert swapped == [
        "right_pupil", "left_pupil", "nose_tip", "mouth_right", "mouth_left", "chin", "right_ear",
        "left_ear",
    ]  # fmt: skip


def test_a_mirrored_sample_is_its_mirror_image_pixel_by_pixel() -> None:
    samples = rendered(SMALL)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(len(samples), 2, 3)
    moved = moved_by(samples, mirror)
    assert torch.equal(moved.images, samples.images.flip(3))
    assert torch.equal(moved.masks, samples.masks.flip(2))
    partner = samples.keypoints[:, MIRRORED_KEYPOINTS]
    torch.testing.assert_close(moved.keypoints[..., 0], 64 - partner[..., 0])
    torch.testing.assert_close(moved.keypoints[..., 1:], partner[..., 1:])


def test_a_mirrored_scene_has_the_mirrored_keypoints() -> None:
    """Compares with the renderer's image from the camera on the other side."""
    scene = scenes(16)
    other = replace(
        scene,
        azimuth=-scene.azimuth,
        gaze=scene.gaze * torch.tensor([-1.0, 1.0]),
        parting=-scene.parting,
    )
    truth, expected = render(scene, 64), render(other, 64)
    samples = Samples(bytes_from_colors(truth.image), truth.mask, truth.keypoints)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(len(samples), 2, 3)
    moved = moved_by(samples, mirror)
    assert (moved.masks == expected.mask).float().mean() > 0.999
    seen = (moved.keypoints[..., 2] * expected.keypoints[..., 2]) > 0
    assert seen.float().mean() > 0.7
    torch.testing.assert_close(
        moved.keypoints[seen][:, :2], expected.keypoints[seen][:, :2], atol=1e-3, rtol=0
    )


def disc(x: float, y: float) -> Tensor:
    """bool [64, 64]: pixels within 5 px of a point."""
    center = torch.arange(64) + 0.5
    return (center[None, :] - x) ** 2 + (center[:, None] - y) ** 2 < 25


def test_image_mask_and_keypoints_move_together() -> None:
    """The centroid of a disc in the image and in the mask is at the transformed keypoint."""
    count = 64
    places = torch.rand(count, 2, generator=generator(3)) * 16 + 24
    masks = torch.stack([disc(x, y) for x, y in places.tolist()]).byte()
    keypoints = torch.cat([places, torch.ones(count, 1)], 1)[:, None].expand(-1, 8, -1)
    samples = Samples((masks * 200)[:, None].expand(-1, 3, -1, -1), masks, keypoints)
    moved = moved_by(samples, random_maps(count, generator(4), Variation()))
    for weight in (moved.images[:, 0].float(), moved.masks.float()):
        pixel = torch.arange(64) + 0.5
        total = weight.sum(dim=(1, 2))
        x = (weight.sum(dim=1) * pixel).sum(dim=1) / total
        y = (weight.sum(dim=2) * pixel).sum(dim=1) / total
        found = torch.stack([x, y], dim=1)
        torch.testing.assert_close(found, moved.keypoints[:, 0, :2], atol=0.5, rtol=0)
    assert (moved.keypoints[:, 0, :2] - places).norm(dim=1).max() > 4  # they did move


def test_a_keypoint_that_leaves_the_frame_is_not_trusted() -> None:
    samples = rendered(SMALL)
    away = torch.tensor([[1.0, 0, 1.9], [0, 1, 0]]).expand(len(samples), 2, 3)
    assert (moved_by(samples, away).keypoints[..., 2] == 0).all()


def test_variants_keep_types_and_follow_the_seed() -> None:
    samples = rendered(SMALL)
    first, again, other = (varied(samples, generator(s)) for s in (1, 1, 2))
    assert first.images.dtype == torch.uint8 and first.masks.dtype == torch.uint8
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.keypoints, again.keypoints)
    assert not torch.equal(first.images, other.images)
    assert set(first.masks.unique().tolist()) <= set(range(len(CLASS_NAMES)))
