"""Settings of interpreter training."""

from dataclasses import dataclass
from typing import Literal

from nets.features import Resize
from nets.interpreter import HeadKind
from nets.labels import Measure

# Of the score of a new ensemble's classes, see decision 36; the papers' is jensen_shannon.
USUAL_MEASURE: Measure = "jensen_shannon"


@dataclass(frozen=True)
class InterpreterTrainConfig:
    """Settings of one training run, in which all members of all heads are trained together."""

    members: int = 10  # ensemble size of each head
    head_members: tuple[tuple[HeadKind, int], ...] = ()  # heads with another number of members
    steps: int = 480
    pixels: int = 1024  # per step, split evenly over images
    learning_rate: float = 2e-3  # initial rate of Adam; falls to zero along a cosine
    hidden: tuple[int, int] | None = None  # layer widths; None: the published ones
    resize: Resize = "bilinear"
    sigma_px: float | None = None  # keypoint heatmaps, label pixels; None: 1.5 / 64 of the grid
    class_weights: tuple[float, ...] | None = None  # cross-entropy weights by class id
    seed: int = 0
    schedule: Literal["cosine", "published"] = "cosine"

    def members_of(self, kind: HeadKind) -> int:
        """Number of members of this head."""
        return dict(self.head_members).get(kind, self.members)

    def sigma(self, grid: int) -> float:
        """Standard deviation of keypoint heatmaps in label pixels, on a grid of this size."""
        return 1.5 * grid / 64 if self.sigma_px is None else self.sigma_px


@dataclass(frozen=True)
class PublishedSchedule:
    """Schedule of the published DatasetGAN code: shuffled batches of all pixels, early stopping."""

    batch: int = 64  # pixels
    learning_rate: float = 1e-3  # Adam's, constant
    max_epochs: int = 100
    first_epoch: int = 4  # first epoch (from 0) in which a member may stop
    patience: int = 50  # batches without a new lowest loss; at the next one, a member stops
    least_pixels: int = 30  # of a class in an image; fewer count as slips of the annotator


PUBLISHED = PublishedSchedule()
