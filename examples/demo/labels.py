"""Labels of the demo generator's images: the renderer's truth, in place of a person's work.

A generator enters, the folder of a labeled set leaves. `python -m examples.demo.labels FOLDER...`
labels sets that `python -m training sample` drew.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from checkpoints import ClassCard, Classes
from examples.demo.render import SceneTruth, render
from examples.demo.scene import (
    CLASS_NAMES,
    KEYPOINT_NAMES,
    PALETTE,
    SKELETON,
    Z_DIM,
    scene_from_latents,
)
from labelmint.latents import Purpose, latents
from nets.generator import Generator
from training.images.image_set import image_set_from_folder
from training.images.sample import SampleConfig, drawn_indices, sample_images
from training.label_crop import LabelCrop, crop_for_generator
from training.labels.labelled_set import LabelledSet
from training.labels.write import write_labels

LABEL_SEED = 2021
CANDIDATES = 256
EXAMPLES = 16
RENDERED_AT_ONCE = 50


def write_examples(generator: Generator, folder: Path, generator_sha256: str) -> None:
    """Picks 16 of 256 drawn latents that are spread over w, and labels their images."""
    config = SampleConfig(count=EXAMPLES, candidates=CANDIDATES, seed=LABEL_SEED)
    crop = crop_for_generator(generator.config)
    shutil.rmtree(folder, ignore_errors=True)  # from an earlier demo
    images = sample_images(generator, config, crop, folder, generator_sha256)
    truth = truth_of_indices(LABEL_SEED, drawn_indices(images), crop.grid)
    labels = labels_from_truth(crop, images.stems, images.ws, truth)
    write_labels(folder, labels)


def labels_of_indices(generator: Generator, seed: int, indices: NDArray[np.int64]) -> LabelledSet:
    """Exact labels of the stream's samples of these indices, without truncation."""
    crop = crop_for_generator(generator.config)
    truth = truth_of_indices(seed, indices, crop.grid)
    ws = ws_of_indices(generator, seed, indices)
    return labels_from_truth(crop, [str(i) for i in indices], ws, truth)


@torch.no_grad()
def ws_of_indices(
    generator: Generator, seed: int, indices: NDArray[np.int64]
) -> NDArray[np.float32]:
    """w+ [n, num_ws, w_dim] of the stream's samples of these indices, without truncation."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, indices, Z_DIM))
    w = generator.mapping(z)
    ws: NDArray[np.float32] = w[:, None].repeat(1, generator.config.num_ws, 1).numpy()
    return ws


def truth_of_indices(seed: int, indices: NDArray[np.int64], resolution: int) -> SceneTruth:
    """The renderer's images and labels of the stream's samples of these indices."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, indices, Z_DIM))
    parts = [
        render(scene_from_latents(part, part), resolution) for part in z.split(RENDERED_AT_ONCE)
    ]
    return SceneTruth(
        torch.cat([part.image for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.keypoints for part in parts]),
        torch.cat([part.depth for part in parts]),
    )


def labels_from_truth(
    crop: LabelCrop, stems: Sequence[str], ws: NDArray[np.float32], truth: SceneTruth
) -> LabelledSet:
    """A labeled set with the renderer's labels."""
    cards = [ClassCard(name=n, color=c) for n, c in zip(CLASS_NAMES, PALETTE, strict=True)]
    return LabelledSet(
        crop,
        tuple(stems),
        ws,
        classes=Classes(cards),
        masks=truth.mask.numpy(),
        keypoints=truth.keypoints.numpy(),
        keypoint_names=KEYPOINT_NAMES,
        skeleton=SKELETON,
        depth=truth.depth.numpy(),
        depth_unit="head half-heights",
    )


@click.command()
@click.argument(
    "folders",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def main(folders: tuple[Path, ...]) -> None:
    """Label the images that `training sample` drew into each FOLDER from the demo's generator.

    Writes masks, keypoints and depth beside them, as a person would by hand.
    """
    for folder in folders:
        images = image_set_from_folder(folder)
        seed, indices = images.index.made["seed"], drawn_indices(images)
        assert isinstance(seed, int)
        truth = truth_of_indices(seed, indices, images.crop.grid)
        write_labels(folder, labels_from_truth(images.crop, images.stems, images.ws, truth))
        click.echo(f"wrote masks, keypoints and depth of {len(indices)} images to {folder}")


if __name__ == "__main__":
    main()
