"""Source images and real images -> a trained refiner, step by step (SimGAN, CVPR 2017).

Images enter as uint8 [n, 3, H, W], the source's while training runs (`pool_size` of the config says
when). Training has three phases: the refiner learns to leave images
as they are, the critic learns to tell refined images from real ones, then both alternate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nets.refiner import Refiner, RefinerConfig
from training.errors import RefinerError
from training.images.pool import Pool
from training.label_crop import bytes_from_float, extent_of_crops, float_from_bytes, random_crops
from training.refiner.config import Feature, RefinerTrainConfig, Regulariser
from training.refiner.state import RefinerState, ReplayBuffer

INFERENCE_BATCH = 16


class RefinerTraining:
    """Runs one step at a time; deterministic for a seed, also when resumed from a state.

    The networks are on the device, the images stay on the CPU.
    """

    def __init__(
        self,
        config: RefinerTrainConfig,
        source: Pool,
        real: Tensor,  # uint8 [m, 3, H, W]
        device: torch.device | None = None,  # None: the CPU
    ) -> None:
        self.config, self.source, self.real, self.device = config, source, real, device
        self.extent = extent_of_crops(real, config.crop)
        self.state = RefinerState(config, (real.shape[1], *self.extent), device)
        self._update_average = get_ema_multi_avg_fn(config.averaging)

    def fill_pool(self, ahead: int = 0) -> None:
        """Adds the images that the steps until now drew from, and those of the next ones.

        Raises TrainingError.
        """
        step = self.state.step + ahead
        self.source.fill(self.config.pool_size(step, self.source.first, self.source.count))

    def advance(self) -> dict[str, float]:
        """Runs one step and returns its losses.

        They are `reg`, the refiner's self-regularization, `adv_g`, its adversarial loss, and
        `adv_d`, the critic's loss. Raises RefinerError when a loss or a gradient is not finite,
        before that update changes any weight.
        """
        self.fill_pool(ahead=1)
        config, step = self.config, self.state.step
        losses: dict[str, float] = {}
        if step < config.warm_up:
            losses |= self._update_refiner(adversarial=False)
        elif step < config.warm_up + config.critic_warm_up:
            losses |= self._update_critic()
        else:
            for _ in range(config.refiner_updates):
                losses |= self._update_refiner(adversarial=True)
            for _ in range(config.critic_updates):
                losses |= self._update_critic()
        self.state.step += 1
        return losses

    def _update_refiner(self, adversarial: bool) -> dict[str, float]:
        original = self._drawn_crops(self.source.images)
        refined = self.state.refiner(original, self._grain(original))
        losses = {"reg": self_regularisation(refined, original, self.config.regulariser)}
        if adversarial:
            losses["adv_g"] = adversarial_loss(self.state.critic(refined), real=True)
        self._apply(losses, self.state.refiner, self.state.refiner_adam)
        self._update_average(
            list(self.state.average.parameters()), list(self.state.refiner.parameters()), 0
        )
        return {name: loss.item() for name, loss in losses.items()}

    def _update_critic(self) -> dict[str, float]:
        original = self._drawn_crops(self.source.images)
        with torch.no_grad():
            fresh = self.state.refiner(original, self._grain(original))
        refined = mixed_with_replay(fresh, self.state.replay, self.state.rng)
        loss = adversarial_loss(self.state.critic(self._drawn_crops(self.real)), real=True)
        loss = loss + adversarial_loss(self.state.critic(refined), real=False)
        self._apply({"adv_d": loss}, self.state.critic, self.state.critic_adam)
        return {"adv_d": loss.item()}

    def _drawn_crops(self, images: Tensor) -> Tensor:
        """A batch of random crops, float32 [batch, C, height, width] in [-1, 1]."""
        crops = random_crops(images, self.config.batch_size, self.extent, self.state.rng)
        return float_from_bytes(crops.to(self.device)).contiguous(memory_format=torch.channels_last)

    def _grain(self, images: Tensor) -> Tensor | None:
        return grain_for(images, self.config.network, self.state.rng)

    def _apply(
        self, losses: dict[str, Tensor], module: nn.Module, adam: torch.optim.Optimizer
    ) -> None:
        """One update by the sum of the losses."""
        adam.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.config.gradient_norm)
        for name, value in (*losses.items(), ("the gradient's norm", norm)):
            if not torch.isfinite(value):
                raise RefinerError(
                    f"{name} is {value.item()} at step {self.state.step}; training ends, the files "
                    "of the last check stay; try a learning rate under "
                    f"{self.config.learning_rate:g}"
                )
        adam.step()


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Mean cross-entropy of all patches against one verdict: logits [N, 1, h, w] -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def self_regularisation(refined: Tensor, original: Tensor, config: Regulariser) -> Tensor:
    """Weighted L1 distance between two [N, C, H, W] in the chosen feature, a scalar."""
    pairs = zip(features(refined, config.feature), features(original, config.feature), strict=True)
    distance = torch.cat([(a - b).abs().flatten(1) for a, b in pairs], dim=1)  # [N, values]
    if config.reduction == "mean":
        return config.strength * distance.mean()
    if config.reduction == "image-sum":
        return config.strength * distance.sum(dim=1).mean()
    return config.strength * distance.sum()


def features(images: Tensor, feature: Feature) -> tuple[Tensor, ...]:
    """Features of [N, C, H, W] that self-regularization compares: the colors, their mean over
    channels, or their differences to the right and downwards."""
    if feature == "identity":
        return (images,)
    if feature == "colour-mean":
        return (images.mean(dim=1),)
    return images.diff(dim=3), images.diff(dim=2)


def mixed_with_replay(fresh: Tensor, replay: ReplayBuffer, rng: torch.Generator) -> Tensor:
    """The critic's batch of refined images, [n, C, H, W].

    Up to half of it is drawn from the replay buffer, the rest is fresh. The first half of the
    fresh images is added to the buffer, and drawn images take its place in the batch.
    """
    half = len(fresh) // 2
    past = replay.draw(half, rng)
    replay.push(fresh[:half], rng)
    return torch.cat([fresh[len(past) :], past])


def grain_for(images: Tensor, config: RefinerConfig, rng: torch.Generator) -> Tensor | None:
    """Noise for images [N, C, H, W], on their device; None for a refiner without grain."""
    if config.grain == 0:
        return None
    n, _, height, width = images.shape
    return torch.randn(n, config.grain, height, width, generator=rng).to(images.device)


@torch.no_grad()
def refined_bytes(refiner: Refiner, images: Tensor, seed: int) -> Tensor:
    """uint8 [n, C, H, W] -> refined uint8 [n, C, H, W], with grain of a seed; both on the CPU."""
    device = next(refiner.parameters()).device
    rng = torch.Generator().manual_seed(seed)
    refined = []
    for batch in images.split(INFERENCE_BATCH):
        x = float_from_bytes(batch.to(device))
        refined.append(bytes_from_float(refiner(x, grain_for(x, refiner.config, rng))).cpu())
    return torch.cat(refined)
