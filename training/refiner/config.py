"""Settings of a refiner's training."""

from dataclasses import dataclass, field
from typing import Literal

from nets.refiner import RefinerConfig

Feature = Literal["identity", "colour-mean", "gradients"]
Reduction = Literal["mean", "image-sum", "batch-sum"]


@dataclass(frozen=True)
class Regulariser:
    """Self-regularisation: strength * L1 distance of refined images from their originals."""

    strength: float = 2.0  # lambda in the paper; its scale depends on the reduction
    reduction: Reduction = "mean"  # over all values; or summed per image, or over the whole batch
    feature: Feature = "identity"  # what is compared: see `features` in train.py


@dataclass(frozen=True)
class RefinerTrainConfig:
    """Settings of the three phases: refiner warm-up, critic warm-up, alternation.

    The defaults are those that were measured (docs/refiner.md).
    """

    network: RefinerConfig = field(default_factory=RefinerConfig)
    regulariser: Regulariser = field(default_factory=Regulariser)
    warm_up: int = 60  # updates of the refiner, by self-regularization alone
    critic_warm_up: int = 100  # updates of the critic alone
    steps: int = 1000  # alternations
    refiner_updates: int = 1  # per alternation, K_g in the paper
    critic_updates: int = 2  # per alternation, K_d in the paper
    batch_size: int = 16
    crop: int = 32  # side of the training crops, pixels; 0: whole images
    critic_width: int = 96
    learning_rate: float = 5e-4  # Adam's, of refiner and critic
    averaging: float = 0.98  # decay of the moving average of the refiner's weights
    gradient_norm: float = 50.0  # gradients are clipped to this norm
    history: int = 512  # capacity of the replay buffer, images
    seed: int = 0

    @property
    def total(self) -> int:
        """Steps of all phases; an alternation is one step."""
        return self.warm_up + self.critic_warm_up + self.steps

    def pool_size(self, step: int, first: int, count: int) -> int:
        """Images that step `step`, counted from 1, draws from.

        The warm-ups begin with `first` images and add an even share of `count` at every step, so
        that the last of their steps, and all alternations, draw from all of them.
        """
        warm_ups = max(1, self.warm_up + self.critic_warm_up)
        return min(count, max(first, -(-count * step // warm_ups)))
