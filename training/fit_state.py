"""A fit under way: weights, Adam's moments, members that have stopped; and its file.

Random draws are functions of the step, so nothing else has to be kept. The file is safetensors.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nets.interpreter import Interpreter
from training.errors import TrainingError
from training.fit_config import PUBLISHED

ADAM = ("exp_avg", "exp_avg_sq", "step")
RULE = ("lowest", "waited", "stopped")


@dataclass
class FitState:
    """What changes from step to step."""

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

    def _by_member(self) -> list[tuple[str, Tensor]]:
        """Every weight and statistic as [members, ...]: all begin with the members' rows."""
        state = self.interpreter.state_dict()
        return [(n, t.view(self.members, -1)) for n, t in state.items() if t.ndim > 0]


def write_fit_state(path: Path, state: FitState, identity: str) -> None:
    """Writes the state in one step."""
    tensors = {f"model.{name}": t for name, t in state.interpreter.state_dict().items()}
    for name, parameter in state.interpreter.named_parameters():
        for key in ADAM:
            tensors[f"{key}.{name}"] = state.optimizer.state[parameter][key]
    tensors |= {f"rule.{name}": getattr(state, name) for name in RULE}
    tensors |= {f"kept.{name}": t for name, t in state.kept.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        contiguous = {name: t.detach().contiguous() for name, t in tensors.items()}
        save_file(contiguous, partial, {"identity": identity, "step": str(state.step)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def fit_state_from_file(path: Path, state: FitState, identity: str) -> None:
    """Fills `state` with what `write_fit_state` wrote. Raises TrainingError when the file is broken
    or of a fit of other labels, generator or settings."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                raise TrainingError(
                    f"{path} is an unfinished fit of other labels, another generator or other "
                    "settings; delete it, or give another --out"
                )
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        state.step = int(metadata["step"])
        state.interpreter.load_state_dict(_part(tensors, "model"))
        moments = {key: _part(tensors, key) for key in ADAM}
        for name, parameter in state.interpreter.named_parameters():
            kept = {key: moments[key][name].to(parameter.device) for key in ADAM}
            state.optimizer.state[parameter] = kept
        for name in RULE:
            setattr(state, name, tensors[f"rule.{name}"])
        device = next(state.interpreter.parameters()).device
        state.kept = {name: t.to(device) for name, t in _part(tensors, "kept").items()}
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path} is no unfinished fit ({reason}); delete it") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
