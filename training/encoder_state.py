"""Everything an encoder's training is at one step, so that it can go on to the last bit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.encoder import Encoder
from training.state_file import copy_tensors, tensors_of_trained


@dataclass
class EncoderState:
    """The training at a step; `tensors` and `load` are its file."""

    encoder: Encoder
    adam: torch.optim.Adam
    chances: torch.Generator  # of the samples to come
    steps: int  # in all
    step: int = 0  # that are done

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        values = self.encoder.state_dict(prefix="encoder.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "chances": self.chances.get_state(),
            **tensors_of_trained(values, self.adam),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        own = self.tensors()
        copy_tensors(own, tensors)
        self.chances.set_state(own["chances"])
        self.step = int(own["step"])
        if not 0 <= self.step <= self.steps:
            raise ValueError(f"it is at step {self.step} of {self.steps}")
