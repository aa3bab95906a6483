"""A fit under way: weights, Adam's moments, members that have stopped.

Random draws are functions of the step, so nothing else has to be kept.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nets.interpreter import Interpreter
from training.fit_config import PUBLISHED
from training.state_file import copy_tensors, tensors_of_trained

KEPT = "kept."


@dataclass
class FitState:
    """What changes from step to step; `tensors` and `load` are its file."""

    interpreter: Interpreter
    optimizer: torch.optim.Adam
    step: int = 0  # steps that are done
    lowest: Tensor = field(init=False)  # loss of each member since the rule watches, [members]
    waited: Tensor = field(init=False)  # batches since then, int64 [members]
    stopped: Tensor = field(init=False)  # bool [members]
    kept: dict[str, Tensor] = field(default_factory=dict)  # weights of members as they stopped

    def __post_init__(self) -> None:
        members = self.members
        self.lowest = torch.full((members,), torch.inf)
        self.waited = torch.zeros(members, dtype=torch.int64)
        self.stopped = torch.zeros(members, dtype=torch.bool)

    @property
    def members(self) -> int:
        """Members of each head."""
        return self.interpreter.head(next(iter(self.interpreter.heads))).config.members

    def watch(self, losses: Tensor, epoch: int) -> None:
        """The published rule: from epoch 4 on, a member stops at the 51st batch in a row whose
        loss is no new lowest one (losses [members])."""
        if epoch < PUBLISHED.first_epoch:
            return
        better = losses < self.lowest
        self.lowest = torch.where(better, losses, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        ended = (self.waited > PUBLISHED.patience) & ~self.stopped
        if ended.any():
            for name, rows in self._by_member():
                self.kept.setdefault(name, rows.clone())[ended] = rows[ended]
            self.stopped |= ended

    def restore_stopped(self) -> None:
        """Gives the members that stopped the weights they stopped with."""
        if self.kept:
            for name, rows in self._by_member():
                rows[self.stopped] = self.kept[name][self.stopped]

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        values = self.interpreter.state_dict(prefix="model.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "lowest": self.lowest,
            "waited": self.waited,
            "stopped": self.stopped,
            **tensors_of_trained(values, self.optimizer),
            **{f"{KEPT}{name}": rows for name, rows in self.kept.items()},
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        self.kept = {}
        if any(name.startswith(KEPT) for name in tensors):
            self.kept = {name: torch.empty_like(rows) for name, rows in self._by_member()}
        own = self.tensors()
        copy_tensors(own, tensors)
        self.step = int(own["step"])

    def _by_member(self) -> list[tuple[str, Tensor]]:
        """Every weight and statistic as [members, ...]: all begin with the members' rows."""
        state = self.interpreter.state_dict()
        return [(n, t.view(self.members, -1)) for n, t in state.items() if t.ndim > 0]
