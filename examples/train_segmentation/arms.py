"""The five arms of the comparison: they differ in training data and in nothing else.

An arm enters; its batches and, for arm e, an extra loss leave.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import torch

from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES
from examples.train_segmentation.consistency import MeanTeacher
from examples.train_segmentation.fit import ExtraLoss
from examples.train_segmentation.samples import (
    TRAINING,
    Samples,
    samples_from_batch,
    shuffled_batches,
)
from examples.train_segmentation.unet import UNet
from labelmint import Client
from labelmint.torch import LabelStream

KEEP_FRACTION = 0.9
STREAM_SEED = 41_000  # the run's seed is added, so that each run has another stream
OUTPUTS = ("image", "mask", "keypoints")


class Arm(Enum):
    """An arm; the value is its letter."""

    LABELED = "a"
    STREAM = "b"
    FILTERED = "c"
    SUPERVISED = "d"
    CONSISTENCY = "e"

    @property
    def title(self) -> str:
        """Title for tables and pictures."""
        return _TITLES[self]


_TITLES = {
    Arm.LABELED: "16 labeled images",
    Arm.STREAM: "stream, no filter",
    Arm.FILTERED: f"stream, keep_fraction {KEEP_FRACTION}",
    Arm.SUPERVISED: f"{TRAINING.count:,} rendered images, supervised",
    Arm.CONSISTENCY: f"16 labeled, {TRAINING.count:,} rendered unlabeled",
}


@dataclass(frozen=True)
class Material:
    """Sources of the arms' images; each is created when an arm first calls it."""

    labeled: Callable[[], Samples]
    rendered: Callable[[], Samples]
    target: Callable[[], str]  # HOST:PORT of a server of the demo's bundle


@dataclass(frozen=True)
class ArmData:
    """Training data of an arm."""

    batches: Iterator[Samples]  # endless, of exactly the batch size
    extra: Callable[[UNet], ExtraLoss] | None = None


def data_of_arm(arm: Arm, material: Material, batch_size: int, seed: int) -> ArmData:
    """The training data of an arm, determined by the seed."""

    def shuffled(samples: Samples, purpose: int) -> Iterator[Samples]:
        return shuffled_batches(
            samples, batch_size, torch.Generator().manual_seed(2 * seed + purpose)
        )

    match arm:
        case Arm.LABELED:
            return ArmData(shuffled(material.labeled(), 0))
        case Arm.STREAM:
            return ArmData(streamed(material.target(), batch_size, STREAM_SEED + seed, None))
        case Arm.FILTERED:
            return ArmData(
                streamed(material.target(), batch_size, STREAM_SEED + seed, KEEP_FRACTION)
            )
        case Arm.SUPERVISED:
            return ArmData(shuffled(material.rendered(), 0))
        case Arm.CONSISTENCY:
            unlabeled = shuffled(material.rendered(), 1)
            return ArmData(
                shuffled(material.labeled(), 0),
                lambda network: MeanTeacher(network, unlabeled, seed),
            )


def streamed(
    target: str, batch_size: int, seed: int, keep_fraction: float | None
) -> Iterator[Samples]:
    """Endless batches of the stream; raises LabelmintError."""
    stream = LabelStream(
        target, batch_size=batch_size, seed=seed, keep_fraction=keep_fraction, outputs=OUTPUTS
    )
    return map(samples_from_batch, stream)


def check_model(client: Client, resolution: int) -> None:
    """Checks that a server's labels are comparable with the renderer's.

    Raises:
        ValueError: classes, keypoints or a size differ.
        LabelmintError: the call failed.
    """
    model = client.model()
    found = (
        tuple(c.name for c in model.classes), model.keypoints, model.image_size, model.label_size
    )  # fmt: skip
    size = (resolution, resolution)
    wanted = (CLASS_NAMES, KEYPOINT_NAMES, size, size)
    names = ("classes", "keypoints", "image size", "label size")
    for name, has, needs in zip(names, found, wanted, strict=True):
        if has != needs:
            raise ValueError(
                f"model {model.name} has {name} {has}, the renderer {needs}; serve the bundle "
                "of `make demo`"
            )
