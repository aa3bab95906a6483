"""Source images and real ones -> a trained refiner, step by step.

Images are uint8 [n, C, H, W]. The order: the refiner learns to leave images as they are, the
critic learns to tell them from real ones, then both take turns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.refiner import Refiner, RefinerConfig
from training.errors import RefinerError
from training.label_crop import bytes_from_float, extent_of_crops, float_from_bytes, random_crops
from training.refiner.config import Feature, RefinerTrainConfig, Regulariser
from training.refiner.state import RefinerState, ReplayBuffer


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of every patch against one verdict, averaged: logits [N, 1, h, w] -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def self_regularisation(refined: Tensor, original: Tensor, config: Regulariser) -> Tensor:
    """The weighted L1 distance of [N, C, H, W] to [N, C, H, W] in the chosen features, a scalar."""
    pairs = zip(features(refined, config.feature), features(original, config.feature), strict=True)
    distance = torch.cat([(a - b).abs().flatten(1) for a, b in pairs], dim=1)  # [N, values]
    if config.reduction == "mean":
        return config.strength * distance.mean()
    if config.reduction == "image-sum":
        return config.strength * distance.sum(dim=1).mean()
    return config.strength * distance.sum()


def features(images: Tensor, feature: Feature) -> tuple[Tensor, ...]:
    """What is compared of [N, C, H, W]: the colours, their mean, or their differences to the
    right and downwards."""
    if feature == "identity":
        return (images,)
    if feature == "colour-mean":
        return (images.mean(dim=1),)
    return images.diff(dim=3), images.diff(dim=2)


def grain_for(images: Tensor, config: RefinerConfig, rng: torch.Generator) -> Tensor | None:
    """Fresh noise for [N, C, H, W], where they are; None for a refiner that has none."""
    if config.grain == 0:
        return None
    n, _, height, width = images.shape
    return torch.randn(n, config.grain, height, width, generator=rng).to(images.device)


@torch.no_grad()
def refined_bytes(refiner: Refiner, images: Tensor, seed: int) -> Tensor:
    """uint8 [n, C, H, W] -> uint8 [n, C, H, W] with the grain of a seed; both on the CPU."""
    device = next(refiner.parameters()).device
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for part in images.split(16):
        x = float_from_bytes(part.to(device))
        parts.append(bytes_from_float(refiner(x, grain_for(x, refiner.config, rng))).cpu())
    return torch.cat(parts)


def mixed_with_replay(fresh: Tensor, history: ReplayBuffer, rng: torch.Generator) -> Tensor:
    """What the critic gets as refined, [n, C, H, W]: half of it from the history as soon as that
    holds so many, the rest fresh; the fresh ones it does not get go into the history."""
    half = len(fresh) // 2
    past = history.draw(half, rng)
    history.push(fresh[:half], rng)
    return torch.cat([fresh[len(past) :], past])


class RefinerTraining:
    """Takes one step after the other; deterministic for a seed, and for a state it goes on from.
    The networks are on the device, the images stay on the CPU."""

    def __init__(
        self,
        config: RefinerTrainConfig,
        source: Tensor,
        real: Tensor,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.source, self.real, self.device = config, source, real, device
        self.extent = extent_of_crops(source, config.crop)
        self.state = RefinerState(config, (source.shape[1], *self.extent), device)

    def advance(self) -> dict[str, float]:
        """One update or alternation, and its losses by name. Raises RefinerError when one is not
        finite, before it has changed anything."""
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
        original = self._drawn(self.source)
        refined = self.state.refiner(original, self._grain(original))
        stay = self_regularisation(refined, original, self.config.regulariser)
        losses = {"stay": stay}
        if adversarial:
            losses["fool"] = adversarial_loss(self.state.critic(refined), real=True)
        self._apply(losses, self.state.refiner, self.state.refiner_adam)
        with torch.no_grad():
            for kept, now in zip(
                self.state.average.parameters(), self.state.refiner.parameters(), strict=True
            ):
                kept.lerp_(now, 1 - self.config.averaging)
        return {name: loss.item() for name, loss in losses.items()}

    def _update_critic(self) -> dict[str, float]:
        original = self._drawn(self.source)
        with torch.no_grad():
            fresh = self.state.refiner(original, self._grain(original))
        refined = mixed_with_replay(fresh, self.state.history, self.state.rng)
        found = adversarial_loss(self.state.critic(self._drawn(self.real)), real=True)
        found = found + adversarial_loss(self.state.critic(refined), real=False)
        self._apply({"tell": found}, self.state.critic, self.state.critic_adam)
        return {"tell": found.item()}

    def _drawn(self, images: Tensor) -> Tensor:
        pieces = random_crops(images, self.config.batch_size, self.extent, self.state.rng)
        return float_from_bytes(pieces.to(self.device)).contiguous(
            memory_format=torch.channels_last
        )

    def _grain(self, images: Tensor) -> Tensor | None:
        return grain_for(images, self.config.network, self.state.rng)

    def _apply(
        self, losses: dict[str, Tensor], module: nn.Module, adam: torch.optim.Optimizer
    ) -> None:
        adam.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.config.gradient_norm)
        for name, value in (*losses.items(), ("the gradient's norm", norm)):
            if not torch.isfinite(value):
                raise RefinerError(
                    f"{name} is {value.item()} at step {self.state.step}; training ends, what "
                    "the last stop wrote stays; try a learning rate under "
                    f"{self.config.learning_rate:g}"
                )
        adam.step()
