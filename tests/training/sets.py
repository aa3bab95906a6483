"""A tiny generator and sets of labelled images made with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from checkpoints import Classes, classes_from_names
from nets.stylegan2 import Generator, GeneratorConfig
from training.images.image_set import ImageEntry, ImageSet, write_image_set
from training.label_crop import LabelCrop, images_from_ws
from training.labels.labelled_set import LabelledSet

CLASSES = classes_from_names(["low", "high", "corner"])
SHA = "0" * 64


def tiny_generator(start: tuple[int, int] = (4, 4)) -> Generator:
    """16 px, 48 features."""
    torch.manual_seed(1)
    config = GeneratorConfig(16, (8, 8, 8), z_dim=8, w_dim=8, mapping_layers=2, start=start)
    return Generator(config).eval().requires_grad_(False)


def tiny_images(
    folder: Path,
    images: int = 3,
    crop: LabelCrop | None = None,
    source: tuple[int, int] | None = None,
) -> ImageSet:
    """An image set of the tiny generator, a.png, b.png ...; `source` is their source_size."""
    torch.manual_seed(2)
    crop = crop or LabelCrop(16, 0, 16)
    generator = tiny_generator(crop.start)
    ws = generator.mapping(torch.randn(images, 8))[:, None].expand(-1, 6, -1).contiguous().numpy()
    entries = [
        ImageEntry(file=f"{chr(97 + i)}.png", pixels_sha256="", source_size=source)
        for i in range(images)
    ]
    pixels = images_from_ws(generator, ws, crop)
    return write_image_set(folder, ws, pixels, crop, entries, SHA, {"by": "a test"})


def tiny_labels(images: int = 4, start: tuple[int, int] = (4, 4)) -> LabelledSet:
    """Masks and depth that are functions of the image, the brightest pixel as the keypoint."""
    generator = tiny_generator(start)
    height, width = generator.config.image_size
    torch.manual_seed(2)
    ws = generator.mapping(torch.randn(images, 8))[:, None].expand(-1, 6, -1).contiguous()
    image = generator.synthesis(ws).image[:, 0]
    masks = (image > image.mean()).byte()
    masks[:, :2, :2] = 2  # a region of four pixels
    peak = image.flatten(1).argmax(dim=1)
    visible = torch.ones(images)
    keypoints = torch.stack([peak % width + 0.5, peak // width + 0.5, visible], dim=1)[:, None]
    return LabelledSet(
        LabelCrop(16, 0, height, start),
        tuple(chr(97 + i) for i in range(images)),
        ws.numpy(),
        classes=CLASSES,
        masks=masks.numpy(),
        keypoints=keypoints.numpy(),
        keypoint_names=("peak",),
        depth=(300 + 50 * image).numpy(),
        depth_unit="mm",
    )


def partly_labelled() -> LabelledSet:
    """The same with pixels, keypoints and depths that nobody labelled."""
    labels = tiny_labels()
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    masks, keypoints, depth = labels.masks.copy(), labels.keypoints.copy(), labels.depth.copy()
    masks[:, :, 8:] = 255
    masks[3] = 255
    keypoints[:2] = np.nan
    depth[0] = np.nan
    depth[1, 4:] = np.nan
    return replace(
        labels,
        classes=Classes(CLASSES.cards, 255),
        masks=masks,
        keypoints=keypoints,
        depth=depth,
    )
