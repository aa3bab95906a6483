"""A few rendered scenes, seeds, and hashes of images for these tests."""

import torch
from torch import Tensor

from examples.train_segmentation.samples import SceneDraw

SMALL = SceneDraw(seed=5, count=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hashes(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}
