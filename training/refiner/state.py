"""The state of a refiner's training after a step, from which it resumes bit for bit.

It holds the networks, Adam's moments, the average of the refiner's weights, the replay buffer and
the random state, all as plain tensors.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from nets.refiner import PatchCritic, Refiner
from training.refiner.config import RefinerTrainConfig
from training.resume import adam_with_moments, copy_tensors, tensors_of_trained

BETAS = (0.5, 0.999)  # Adam's

Module = TypeVar("Module", bound=nn.Module)


class ReplayBuffer:
    """Up to `capacity` refined images of earlier steps (SimGAN, section 2.3), as float16.

    Once it is full, new images replace random old ones.
    """

    def __init__(
        self, capacity: int, shape: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        self.images = torch.zeros(capacity, *shape, dtype=torch.float16, device=device)
        self.filled = 0

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` different images, float32 [m, C, H, W]; m < count while it holds fewer."""
        chosen = torch.randperm(self.filled, generator=rng)[:count]
        return self.images[chosen].float()

    def push(self, images: Tensor, rng: torch.Generator) -> None:
        """Adds [n, C, H, W]; n is at most the capacity."""
        free = torch.arange(self.filled, min(self.filled + len(images), len(self.images)))
        replaced = torch.randperm(self.filled, generator=rng)[: len(images) - len(free)]
        self.images[torch.cat([free, replaced])] = images.detach().to(torch.float16)
        self.filled += len(free)


class RefinerState:
    """The state of a training; `tensors` and `load` convert it to and from a state file."""

    def __init__(
        self,
        config: RefinerTrainConfig,
        shape: tuple[int, int, int],  # [C, H, W] of the training crops
        device: torch.device | None = None,
    ) -> None:
        self.rng = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            refiner = Refiner(config.network)
            critic = PatchCritic(config.network.channels, config.critic_width)
        self.refiner = _channels_last(refiner).to(device)
        self.critic = _channels_last(critic).to(device)
        # The moving average of the refiner's weights is what is written: single steps swing.
        self.average = copy.deepcopy(self.refiner).eval().requires_grad_(False)
        self.refiner_adam = adam_with_moments(
            self.refiner.parameters(), config.learning_rate, BETAS
        )
        self.critic_adam = adam_with_moments(self.critic.parameters(), config.learning_rate, BETAS)
        self.replay = ReplayBuffer(config.history, shape, device)
        self.step = 0  # completed steps

    def tensors(self) -> dict[str, Tensor]:
        """The state by name. The tensors are the live ones, not copies: do not modify them."""
        found = {
            "step": torch.tensor(self.step),
            "chances": self.rng.get_state(),  # keys of the state file, from earlier names
            "history.images": self.replay.images,
            "history.filled": torch.tensor(self.replay.filled),
        }
        for key, parameter in self.average.named_parameters():
            found[f"average.{key}"] = parameter
        for name, module, adam in (
            ("refiner", self.refiner, self.refiner_adam),
            ("critic", self.critic, self.critic_adam),
        ):
            values = {f"{name}.{key}": value for key, value in module.named_parameters()}
            found |= tensors_of_trained(values, adam)
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores a state. Raises ValueError naming the tensor that does not match."""
        own = self.tensors()
        copy_tensors(own, tensors)
        filled, step = int(own["history.filled"]), int(own["step"])
        if not 0 <= filled <= len(self.replay.images) or step < 0:
            raise ValueError("its counters are out of range")
        self.rng.set_state(own["chances"])
        self.step = step
        self.replay.filled = filled


def _channels_last(module: Module) -> Module:
    """With this memory layout convolutions on a CPU run up to twice as fast."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
