"""Labeled images in one form, for every arm.

A stream's batches, the labeled folder or the renderer's scenes enter; `Samples` leave.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from examples.demo.render import render
from examples.demo.scene import Z_DIM, scene_from_latents
from labelmint.torch import LabelBatch
from training.errors import LabelError
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set

RESOLUTION = 64
RENDERED_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Samples:
    """n labeled images of one size."""

    images: Tensor  # uint8 [n, 3, H, W]
    masks: Tensor  # uint8 or int64 [n, H, W], class ids
    keypoints: Tensor  # float32 [n, K, 3]: x, y in pixels (centers at +0.5), confidence in [0, 1]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor) -> "Samples":
        """The samples at positions int64 [m]."""
        return Samples(self.images[index], self.masks[index], self.keypoints[index])


@dataclass(frozen=True)
class SceneDraw:
    """Scenes drawn from a seed; different seeds give different scenes."""

    seed: int
    count: int


TRAINING = SceneDraw(seed=31_001, count=10_000)
VALIDATION = SceneDraw(seed=31_002, count=256)  # for choosing settings, and for the curves
TEST = SceneDraw(seed=31_003, count=1024)  # for the table only


def bytes_from_colors(colors: Tensor) -> Tensor:
    """Colors in [-1, 1] -> uint8, rounded as the server rounds them."""
    return (colors * 127.5 + 128).clamp(0, 255).byte()


def samples_from_batch(batch: LabelBatch) -> Samples:
    """Samples of a stream's batch; confidences are clipped to [0, 1].

    Raises:
        ValueError: the batch lacks one of the three.
    """
    if batch.images is None or batch.masks is None or batch.keypoints is None:
        raise ValueError("the stream has no images, masks or keypoints; ask for all three outputs")
    batch.keypoints[..., 2].clamp_(0, 1)
    return Samples(batch.images, batch.masks, batch.keypoints)


def samples_from_folder(folder: Path) -> Samples:
    """The labeled images of `make demo`.

    Raises:
        LabelError: a file is missing or wrong; the message names it.
    """
    images = image_set_from_folder(folder)
    labels = labelled_set(images)
    if labels.masks is None or labels.keypoints is None:
        raise LabelError(f"{folder} lacks masks or keypoints; `make demo` writes both")
    pixels = np.stack([images.image(row) for row in range(len(images))])
    return Samples(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(labels.masks),
        torch.from_numpy(labels.keypoints),
    )


@cache
def rendered(draw: SceneDraw) -> Samples:
    """Rendered scenes with exact labels; a keypoint's confidence is 1 if it is visible, else 0."""
    source = torch.Generator().manual_seed(draw.seed)
    z = torch.randn(draw.count, Z_DIM, generator=source)
    starts = trange(0, draw.count, RENDERED_AT_ONCE, desc=f"render {draw.count}", unit="batch")
    parts = [_rendered_from_latents(z[i : i + RENDERED_AT_ONCE]) for i in starts]
    return Samples(
        torch.cat([part.images for part in parts]),
        torch.cat([part.masks for part in parts]),
        torch.cat([part.keypoints for part in parts]),
    )


def _rendered_from_latents(z: Tensor) -> Samples:
    truth = render(scene_from_latents(z, z), RESOLUTION)
    return Samples(bytes_from_colors(truth.image), truth.mask, truth.keypoints)


def shuffled_batches(samples: Samples, size: int, source: torch.Generator) -> Iterator[Samples]:
    """Endless batches of exactly this size; each sample is used once before any is repeated."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(samples), generator=source)])
        yield samples.rows(waiting[:size])
        waiting = waiting[size:]
