"""Consistency loss on unlabeled images: the extra loss of arm e.

A teacher that averages the student's weights (Tarvainen and Valpola, Mean teachers, NIPS 2017,
arXiv 1703.01780) labels the images; its confident labels (FixMatch, Sohn et al., NeurIPS 2020,
arXiv 2001.07685) are the student's targets on a recolored CutMix of these images (French et al.,
Semi-supervised semantic segmentation needs strong, varied perturbations, BMVC 2020, arXiv
1906.01916). It applies to classes only: none of the papers covers keypoints.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train_segmentation.augment import Variation, moved_by, random_maps, recolored
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet


@dataclass(frozen=True)
class ConsistencyConfig:
    """The papers' usual settings; nothing was tuned."""

    average: float = 0.99  # weight of the teacher's old weights in each update
    sure: float = 0.95  # least probability of the teacher for a pixel to count
    weight: float = 1.0  # weight of this loss relative to the labeled one


class MeanTeacher:
    """The teacher network and its unlabeled images; an ExtraLoss."""

    def __init__(
        self,
        student: UNet,
        images: Iterator[Samples],  # labels are never read
        seed: int,
        config: ConsistencyConfig | None = None,
        variation: Variation | None = None,
        class_weights: tuple[float, ...] | None = None,
    ) -> None:
        self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self._images, self._config = images, config or ConsistencyConfig()
        self._variation = variation or Variation()
        self._source = torch.Generator().manual_seed(seed)
        self._weights = None if class_weights is None else torch.tensor(class_weights)
        self._steps = 0

    def loss(self, network: UNet) -> Tensor:
        """Cross-entropy with the teacher's confident labels, averaged over all pixels."""
        unlabeled, variation = next(self._images), self._variation
        maps = random_maps(len(unlabeled), self._source, variation)
        weak = moved_by(unlabeled, maps, variation).images
        sureness, labels = self.teacher(weak).classes.softmax(dim=1).max(dim=1)
        strong = recolored(weak, self._source, variation)
        box = random_boxes(len(weak), weak.shape[2:], self._source)
        mixed = torch.where(box[:, None], strong.roll(1, dims=0), strong)
        labels = torch.where(box, labels.roll(1, dims=0), labels)
        sure = torch.where(box, sureness.roll(1, dims=0), sureness) >= self._config.sure
        misfit = F.cross_entropy(network(mixed).classes, labels, self._weights, reduction="none")
        return self._config.weight * (misfit * sure).mean()

    @torch.no_grad()
    def after_step(self, network: UNet) -> None:
        """Updates the teacher's average; it follows the student faster in the first steps."""
        keep = min(self._config.average, 1 - 1 / (self._steps + 1))
        self._steps += 1
        student = network.state_dict()
        for name, value in self.teacher.state_dict().items():
            if value.is_floating_point():
                value.lerp_(student[name], 1 - keep)


def random_boxes(count: int, size: torch.Size, source: torch.Generator) -> Tensor:
    """bool [n, H, W]: in each image a random rectangle with half of its area."""
    height, width = size
    # Each side is at least half the image's; their product is half its area.
    share = 0.5 ** torch.rand(count, 1, generator=source)

    def inside(extent: int, share: Tensor) -> Tensor:
        start = torch.rand(count, 1, generator=source) * (1 - share) * extent
        pixel = torch.arange(extent) + 0.5
        return (pixel >= start) & (pixel < start + share * extent)

    return inside(height, share)[:, :, None] & inside(width, 0.5 / share)[:, None]
