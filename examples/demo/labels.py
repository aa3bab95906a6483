"""The 16 labelled examples: generated images that the renderer labels in the annotator's place.

A generator enters, a labelled set folder leaves, with image_00.png ... to look at.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from examples.demo.render import render
from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES, PALETTE, SKELETON, scene_from_latents
from labelmint.latents import Purpose, latents
from nets.generator import Generator
from training.labelled_set import LabelledSet, LabelNames, write_labelled_set

LABEL_SEED = 2021
CANDIDATES = 256
EXAMPLES = 16


def label_names() -> LabelNames:
    """Classes, palette, keypoints and skeleton of the scene."""
    return LabelNames(
        classes=tuple(zip(CLASS_NAMES, PALETTE, strict=True)),
        keypoints=KEYPOINT_NAMES,
        skeleton=SKELETON,
    )


def spread_rows(points: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows of points [n, d] that cover the set: each is the farthest from those before it."""
    centre = int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())
    chosen = [centre]
    nearest = np.square(points - points[centre]).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
    return np.array(chosen)


@torch.no_grad()
def write_examples(generator: Generator, folder: Path) -> None:
    """Picks 16 of 256 drawn latents that are spread over w, and labels them."""
    drawn = latents(LABEL_SEED, Purpose.OBJECT, np.arange(CANDIDATES), generator.config.z_dim)
    w = generator.mapping(torch.from_numpy(drawn))
    rows = torch.from_numpy(spread_rows(w.numpy(), EXAMPLES))
    z = torch.from_numpy(drawn)[rows]
    ws = w[rows, None].expand(-1, generator.config.num_ws, -1).contiguous()
    truth = render(scene_from_latents(z, z), generator.config.resolution)
    labels = LabelledSet(ws.numpy(), truth.mask.numpy(), truth.keypoints.numpy(), label_names())
    write_labelled_set(folder, labels)
    images = (generator.synthesis(ws).image * 127.5 + 128).clamp(0, 255).byte()
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"image_{i:02d}.png")
