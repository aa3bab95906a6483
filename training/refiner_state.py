"""Everything a refiner's training is at one step, so that it can go on to the last bit.

Networks, Adam's moments, the history and the random numbers to come: all plain tensors.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from nets.refiner import PatchCritic, Refiner
from training.history import History
from training.refiner_config import RefinerFit


class RefinerState:
    """The training at a step; `tensors` and `load` are its file."""

    def __init__(self, config: RefinerFit, shape: tuple[int, int, int]) -> None:
        self.chances = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            refiner = Refiner(config.network)
            critic = PatchCritic(config.network.channels, config.critic_width)
        self.refiner, self.critic = _channels_last(refiner), _channels_last(critic)
        self.average = copy.deepcopy(self.refiner).eval().requires_grad_(False)  # what is kept
        self.refiner_adam = _adam(self.refiner, config.learning_rate)
        self.critic_adam = _adam(self.critic, config.learning_rate)
        self.history = History(config.history, shape)
        self.step = 0

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        found = {
            "step": torch.tensor(self.step),
            "chances": self.chances.get_state(),
            "history.images": self.history.images,
            "history.filled": torch.tensor(self.history.filled),
        }
        for key, parameter in self.average.named_parameters():
            found[f"average.{key}"] = parameter
        for name, module, adam in self._parts():
            for key, parameter in module.named_parameters():
                found[f"{name}.{key}"] = parameter.detach()
                for moment, value in adam.state[parameter].items():
                    found[f"{name}.{key}.{moment}"] = value
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        own = self.tensors()
        for key in own.keys() | tensors.keys():
            if key not in own or key not in tensors:
                raise ValueError(f"{key} is {'missing' if key in own else 'unexpected'}")
            if (own[key].shape, own[key].dtype) != (tensors[key].shape, tensors[key].dtype):
                raise ValueError(
                    f"{key} is {tensors[key].dtype} {list(tensors[key].shape)}, not "
                    f"{own[key].dtype} {list(own[key].shape)}"
                )
        filled = int(tensors["history.filled"])
        if not 0 <= filled <= len(self.history.images) or int(tensors["step"]) < 0:
            raise ValueError("its counters are out of range")
        self.chances.set_state(tensors["chances"])
        for key, value in own.items():
            value.copy_(tensors[key])
        self.step = int(tensors["step"])
        self.history.filled = filled

    def _parts(self) -> list[tuple[str, nn.Module, torch.optim.Adam]]:
        return [
            ("refiner", self.refiner, self.refiner_adam),
            ("critic", self.critic, self.critic_adam),
        ]


Module = TypeVar("Module", bound=nn.Module)


def _channels_last(module: Module) -> Module:
    """On this layout a CPU's convolutions run up to twice as fast."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """With its moments there from the start, so that a state of step 0 is like any other."""
    adam = torch.optim.Adam(module.parameters(), learning_rate, betas=(0.5, 0.999))
    for parameter in module.parameters():
        zeros = torch.zeros_like(parameter, requires_grad=False)
        adam.state[parameter] = {
            "step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()
        }  # fmt: skip
    return adam
