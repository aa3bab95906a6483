"""Domains whose exact labels are known: a generator, and the truth of each of its samples.

    heads     the demo: 8 classes, nearly all of them with a color of their own
    regions   the same heads, whose surfaces are divided by planes of the object (left and right,
              upper and lower face): 14 classes, and no edge in the image between halves

Benchmarks that take --domain read them here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from checkpoints import ClassCard, Classes
from checkpoints.classes import distinct_colors
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import truth_of_indices, ws_of_indices
from examples.demo.render import SceneTruth
from examples.demo.scene import (
    CLASS_NAMES,
    EYE,
    FOCAL,
    HAIR,
    PALETTE,
    PUPIL,
    SKIN,
    Z_DIM,
    scene_from_latents,
)
from examples.demo.solids import camera_of
from labelmint.latents import Purpose, latents
from nets.generator import Generator
from training.label_crop import crop_for_generator
from training.labels.labelled_set import LabelledSet

LOWER_FACE = -0.1  # y of the plane between upper and lower skin, object frame: under the eyes


@dataclass(frozen=True)
class Domain:
    """A generator's weights file, and the exact parts of what the renderer draws for its latents.

    Images and labels are those of the stream's samples of these seeds and indices, without
    truncation.
    """

    generator: Path
    class_names: tuple[str, ...]
    colors: tuple[int, ...]  # 0xRRGGBB of each class
    # (truth of samples, their seed and indices) -> class ids [n, R, R]
    masks: Callable[[SceneTruth, int, NDArray[np.int64]], NDArray[np.uint8]]

    def labels(self, generator: Generator, seed: int, indices: NDArray[np.int64]) -> LabelledSet:
        """Masks of the generator's samples, without keypoints and depth."""
        crop = crop_for_generator(generator.config)
        truth = truth_of_indices(seed, indices, crop.grid)
        names = zip(self.class_names, self.colors, strict=True)
        return LabelledSet(
            crop,
            tuple(str(i) for i in indices),
            ws_of_indices(generator, seed, indices),
            classes=Classes([ClassCard(name=n, color=c) for n, c in names]),
            masks=self.masks(truth, seed, indices),
        )


def heads(truth: SceneTruth, seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Parts of the demo's heads."""
    masks: NDArray[np.uint8] = truth.mask.numpy()
    return masks


# Class of a region: part, subject's left, upper half; None: either.
REGIONS: dict[str, tuple[int, bool | None, bool | None]] = {
    **{
        name: (part, None, None)
        for part, name in enumerate(CLASS_NAMES)
        if part not in (SKIN, HAIR, EYE, PUPIL)
    },
    **{
        f"{side} {half} skin": (SKIN, side == "left", half == "upper")
        for side in ("left", "right")
        for half in ("upper", "lower")
    },
    **{
        f"{side} {CLASS_NAMES[part]}": (part, side == "left", None)
        for part in (HAIR, EYE, PUPIL)
        for side in ("left", "right")
    },
}


def regions(truth: SceneTruth, seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Regions of the demo's heads."""
    points = surface_points(seed, indices, truth.depth)
    left, upper = (points[..., 0] >= 0).numpy(), (points[..., 1] >= LOWER_FACE).numpy()
    parts = truth.mask.numpy()
    masks = np.zeros(parts.shape, np.uint8)
    for i, (part, is_left, is_upper) in enumerate(REGIONS.values()):
        inside = parts == part
        for wanted, half in ((is_left, left), (is_upper, upper)):
            inside = inside if wanted is None else inside & (half == wanted)
        masks[inside] = i
    return masks


def surface_points(seed: int, indices: NDArray[np.int64], depth: Tensor) -> Tensor:
    """z-depth [n, R, R] of samples of the stream -> points in the object frame, [n, R, R, 3]."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, indices, Z_DIM))
    camera = camera_of(scene_from_latents(z, z))
    pixels = (torch.arange(depth.shape[1]) + 0.5) / depth.shape[1] - 0.5  # of the image's extent
    x, y = pixels / FOCAL, -pixels[:, None] / FOCAL
    position, right, up, forward = (
        axis[:, None, None] for axis in (camera.position, camera.right, camera.up, camera.forward)
    )
    rays = forward + x[:, None] * right + y[..., None] * up
    return position + depth[..., None] * rays


DOMAINS = {
    "heads": Domain(GENERATOR, CLASS_NAMES, PALETTE, heads),
    "regions": Domain(GENERATOR, tuple(REGIONS), tuple(distinct_colors(len(REGIONS))), regions),
}
