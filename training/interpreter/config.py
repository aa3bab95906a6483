"""How an interpreter is trained."""

from dataclasses import dataclass
from typing import Literal

from nets.features import Resize
from nets.interpreter import HeadKind


@dataclass(frozen=True)
class FitConfig:
    """Settings of one fit; members and heads train together."""

    members: int = 10
    head_members: tuple[tuple[HeadKind, int], ...] = ()  # of heads with another number
    steps: int = 480
    pixels: int = 1024  # of every step, as many from each image
    learning_rate: float = 2e-3  # Adam's at the start, cosine to zero
    hidden: tuple[int, int] | None = None  # None: the published widths, by the classes' number
    resize: Resize = "bilinear"
    sigma_px: float | None = None  # of the keypoints' Gaussian targets; None: 1.5 / 64 of the grid
    class_weights: tuple[float, ...] | None = None  # of the cross-entropy, by class id
    seed: int = 0
    schedule: Literal["cosine", "published"] = "cosine"

    def members_of(self, kind: HeadKind) -> int:
        """The size of this head's ensemble."""
        return dict(self.head_members).get(kind, self.members)

    def sigma(self, grid: int) -> float:
        """sigma_px, or what stands for it at this grid."""
        return 1.5 * grid / 64 if self.sigma_px is None else self.sigma_px


@dataclass(frozen=True)
class PublishedRule:
    """The DatasetGAN release's training: every pixel in shuffled batches, and when it ends."""

    batch: int = 64
    learning_rate: float = 1e-3  # Adam's, constant
    max_epochs: int = 100
    first_epoch: int = 4  # epochs before it never stop
    patience: int = 50  # batches without a new lowest loss; one more ends it


PUBLISHED = PublishedRule()
