"""How a refiner is trained."""

from dataclasses import dataclass, field
from typing import Literal

from nets.refiner import RefinerConfig

Feature = Literal["identity", "colour-mean", "gradients"]
Reduction = Literal["mean", "image-sum", "batch-sum"]


@dataclass(frozen=True)
class Regulariser:
    """How far a refined image may leave its original: strength times an L1 distance."""

    strength: float = 2.0  # the paper's lambda; its unit is the reduction's
    reduction: Reduction = "mean"  # of all values; or summed by image, or over the batch too
    feature: Feature = "identity"  # what is compared


@dataclass(frozen=True)
class RefinerTrainConfig:
    """The recipe: three phases, one after the other. The defaults are those that were measured."""

    network: RefinerConfig = field(default_factory=RefinerConfig)
    regulariser: Regulariser = field(default_factory=Regulariser)
    warm_up: int = 60  # updates of the refiner by self-regularisation alone
    critic_warm_up: int = 100  # updates of the critic alone
    steps: int = 1000  # alternations
    refiner_updates: int = 1  # K_g, in each alternation
    critic_updates: int = 2  # K_d
    batch_size: int = 16
    crop: int = 32  # extent of the pieces that are trained on, pixels; 0: whole images
    critic_width: int = 96
    learning_rate: float = 5e-4  # Adam's, of both
    averaging: float = 0.98  # share of itself that the average of the refiner's weights keeps
    gradient_norm: float = 50.0  # longer gradients are cut to it
    history: int = 512  # images the critic is reminded of
    seed: int = 0

    @property
    def total(self) -> int:
        """Updates and alternations of all phases, which the counter of steps runs over."""
        return self.warm_up + self.critic_warm_up + self.steps
