"""Everything a refiner's training is at one step, so that it resumes bit for bit.

Networks, Adam's moments, the replay buffer and the state of the random numbers: all plain tensors.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from nets.refiner import PatchCritic, Refiner
from training.refiner.config import RefinerTrainConfig
from training.resume import adam_with_moments, copy_tensors, tensors_of_trained


class ReplayBuffer:
    """A pool of at most `capacity` images; when it is full, new ones replace random old ones."""

    def __init__(
        self, capacity: int, shape: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        self.images = torch.zeros(capacity, *shape, dtype=torch.float16, device=device)
        self.filled = 0

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """float32 [m, C, H, W], different ones; m is less than `count` until so many are in."""
        chosen = torch.randperm(self.filled, generator=rng)[:count]
        return self.images[chosen].float()

    def push(self, images: Tensor, rng: torch.Generator) -> None:
        """Takes [n, C, H, W] in, n at most the capacity."""
        free = torch.arange(self.filled, min(self.filled + len(images), len(self.images)))
        taken = torch.randperm(self.filled, generator=rng)[: len(images) - len(free)]
        self.images[torch.cat([free, taken])] = images.detach().to(torch.float16)
        self.filled += len(free)


BETAS = (0.5, 0.999)  # Adam's


class RefinerState:
    """The training at a step; `tensors` and `load` are its file."""

    def __init__(
        self,
        config: RefinerTrainConfig,
        shape: tuple[int, int, int],
        device: torch.device | None = None,
    ) -> None:
        self.rng = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            refiner = Refiner(config.network)
            critic = PatchCritic(config.network.channels, config.critic_width)
        self.refiner = _channels_last(refiner).to(device)
        self.critic = _channels_last(critic).to(device)
        self.average = copy.deepcopy(self.refiner).eval().requires_grad_(False)  # what is kept
        self.refiner_adam = adam_with_moments(
            self.refiner.parameters(), config.learning_rate, BETAS
        )
        self.critic_adam = adam_with_moments(self.critic.parameters(), config.learning_rate, BETAS)
        self.history = ReplayBuffer(config.history, shape, device)
        self.step = 0

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        found = {
            "step": torch.tensor(self.step),
            "chances": self.rng.get_state(),
            "history.images": self.history.images,
            "history.filled": torch.tensor(self.history.filled),
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
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        own = self.tensors()
        copy_tensors(own, tensors)
        filled, step = int(own["history.filled"]), int(own["step"])
        if not 0 <= filled <= len(self.history.images) or step < 0:
            raise ValueError("its counters are out of range")
        self.rng.set_state(own["chances"])
        self.step = step
        self.history.filled = filled


Module = TypeVar("Module", bound=nn.Module)


def _channels_last(module: Module) -> Module:
    """On this layout a CPU's convolutions run up to twice as fast."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
