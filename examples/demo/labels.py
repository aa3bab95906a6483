"""The 16 labelled examples: generated images that the renderer labels in the annotator's place.

A generator enters, a labelled set folder leaves.
"""

import shutil
from pathlib import Path

import torch

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
from training.frame import frame_for_resolution
from training.image_set import ImageSet
from training.labelled_set import LabelledSet
from training.labels.write import write_labels
from training.sample import SampleConfig, drawn_indices, sample_images

LABEL_SEED = 2021
CANDIDATES = 256
EXAMPLES = 16


def write_examples(generator: Generator, folder: Path, generator_sha256: str) -> None:
    """Picks 16 of 256 drawn latents that are spread over w, and labels their images."""
    config = SampleConfig(count=EXAMPLES, candidates=CANDIDATES, seed=LABEL_SEED)
    frame = frame_for_resolution(generator.config.resolution)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo
    images = sample_images(generator, config, frame, folder, generator_sha256)
    z = torch.from_numpy(latents(LABEL_SEED, Purpose.OBJECT, drawn_indices(images), Z_DIM))
    write_labels(folder, labels_from_truth(images, render(scene_from_latents(z, z), frame.grid)))


def labels_from_truth(images: ImageSet, truth: SceneTruth) -> LabelledSet:
    """The renderer in the annotator's place."""
    cards = [ClassCard(name=n, color=c) for n, c in zip(CLASS_NAMES, PALETTE, strict=True)]
    return LabelledSet(
        images.frame,
        tuple(images.stems),
        images.ws,
        classes=Classes(cards),
        masks=truth.mask.numpy(),
        keypoints=truth.keypoints.numpy(),
        keypoint_names=KEYPOINT_NAMES,
        skeleton=SKELETON,
    )
