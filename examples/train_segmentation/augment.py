"""Augmentation of labeled images, the same for every arm.

A batch of samples enters, one variant of each leaves: mirrored, rotated, scaled, shifted and
recolored, with mask and keypoints transformed in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.demo.scene import KEYPOINT_NAMES
from examples.train_segmentation.samples import Samples


def swapped_sides(names: Sequence[str]) -> tuple[int, ...]:
    """Position of each name's left-right partner, or its own if it has none."""
    table = str.maketrans({"\0": "right", "\1": "left"})
    partners = [n.replace("left", "\0").replace("right", "\1").translate(table) for n in names]
    return tuple(names.index(partner) for partner in partners)


MIRRORED_KEYPOINTS = swapped_sides(KEYPOINT_NAMES)


@dataclass(frozen=True)
class Variation:
    """Ranges of the augmentation; values are drawn uniformly."""

    mirrored: float = 0.5  # probability
    turn_degrees: float = 15.0  # rotation, plus or minus
    scale: float = 1.25  # largest factor up or down, uniform in its logarithm
    shift: float = 0.1  # in image extents, plus or minus
    gain: float = 0.25  # contrast of all channels, plus or minus; half of it for each channel alone
    offset: float = 0.2  # added to colors in [-1, 1], plus or minus
    keypoint_partners: tuple[int, ...] = MIRRORED_KEYPOINTS  # of each keypoint in a mirror
    class_partners: tuple[int, ...] = ()  # of each class in a mirror; empty: each is its own


def varied(
    samples: Samples, source: torch.Generator, variation: Variation | None = None
) -> Samples:
    """One variant of each sample; pixels from outside the image repeat its border."""
    variation = variation or Variation()
    maps = random_maps(len(samples), source, variation)
    moved = moved_by(samples, maps, variation)
    return Samples(recolored(moved.images, source, variation), moved.masks, moved.keypoints)


def random_maps(count: int, source: torch.Generator, variation: Variation) -> Tensor:
    """Affine maps float32 [n, 2, 3] from a variant's coordinates to the original's, both in
    [-1, 1] between the image's edges; a negative determinant mirrors."""
    angle = _uniform(source, count) * math.radians(variation.turn_degrees)
    scale = (_uniform(source, count) * math.log(variation.scale)).exp()
    mirror = torch.where(torch.rand(count, generator=source) < variation.mirrored, -1.0, 1.0)
    shift = _uniform(source, count, 2) * (2 * variation.shift)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    linear = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=1).view(-1, 2, 2)
    return torch.cat([linear, shift[..., None]], dim=2)


def moved_by(samples: Samples, maps: Tensor, variation: Variation | None = None) -> Samples:
    """Images, masks and keypoints transformed by affine maps, as random_maps makes them.

    In a mirror, classes and keypoints of one side become those of the other.
    """
    variation = variation or Variation()
    mirrored = (torch.linalg.det(maps[:, :, :2]) < 0)[:, None, None]
    height, width = samples.masks.shape[1:]
    shape = [len(samples), 1, height, width]
    grid = F.affine_grid(maps, shape, align_corners=False)
    images = F.grid_sample(samples.images.float(), grid, padding_mode="border", align_corners=False)
    masks = F.grid_sample(
        samples.masks[:, None].float(), grid, "nearest", "border", align_corners=False
    )
    masks = masks[:, 0].byte()
    if variation.class_partners:
        partners = torch.tensor(variation.class_partners, dtype=torch.uint8)
        masks = torch.where(mirrored, partners[masks.long()], masks)
    points = samples.keypoints
    points = torch.where(mirrored, points[:, list(variation.keypoint_partners)], points)
    points = _moved_keypoints(points, maps, torch.tensor([width, height]))
    return Samples(images.round().byte(), masks, points)


def _moved_keypoints(keypoints: Tensor, maps: Tensor, extent: Tensor) -> Tensor:
    original = keypoints[..., :2] / extent * 2 - 1
    # The maps are from the variant to the original; points need the inverse.
    points = torch.linalg.solve(maps[:, :, :2], (original - maps[:, None, :, 2]).mT).mT
    framed = (points.abs() < 1).all(dim=2)
    return torch.cat([(points + 1) / 2 * extent, (keypoints[..., 2] * framed)[..., None]], dim=2)


def recolored(images: Tensor, source: torch.Generator, variation: Variation) -> Tensor:
    """uint8 [n, 3, H, W] with random brightness, contrast and tint."""
    count = len(images)
    gain = 1 + variation.gain * (
        _uniform(source, count, 1, 1, 1) + 0.5 * _uniform(source, count, 3, 1, 1)
    )
    offset = variation.offset * 127.5 * _uniform(source, count, 1, 1, 1)
    return ((images.float() - 128) * gain + 128 + offset).clamp(0, 255).round().byte()


def _uniform(source: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=source) * 2 - 1
