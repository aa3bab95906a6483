"""The file a training goes on from: its tensors, and the recipe that they were made by.

A training goes on only by the same recipe: everything that decides the weights, by name, long
things as their hashes.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints import tensors_from_file, write_tensors
from training.errors import TrainingError

RECIPE = "recipe"
HASH = re.compile("[0-9a-f]{64}")
SHOWN = 60  # characters of a value in a message
Recipe = Mapping[str, object]  # of what JSON can hold


@dataclass(frozen=True)
class StateFile:
    """Where an unfinished training is kept, and taken up again by the same command."""

    path: Path
    recipe: Recipe
    every: int  # steps from one writing to the next

    def take_up(self, load: Callable[[dict[str, Tensor]], object]) -> None:
        """Loads the state where there is one. Raises WeightsError, TrainingError."""
        if self.path.exists():
            load_state(self.path, self.recipe, load, "delete it, or name another --out")

    def remove(self) -> None:
        """Removes it, and what was left by writers that were killed."""
        self.path.unlink(missing_ok=True)
        for path in self.path.parent.iterdir():
            if path.name.startswith(f".{self.path.name}."):
                path.unlink(missing_ok=True)


def state_path(out: Path) -> Path:
    """Where the training of these weights goes on from."""
    return out.with_suffix(".state.safetensors")


def write_state(path: Path, tensors: Mapping[str, Tensor], recipe: Recipe) -> None:
    """Writes a state in one step. Raises WeightsError."""
    text = torch.frombuffer(bytearray(json.dumps(recipe).encode()), dtype=torch.uint8)
    write_tensors(path, {**tensors, RECIPE: text})


def load_state(
    path: Path, recipe: Recipe, load: Callable[[dict[str, Tensor]], object], otherwise: str
) -> None:
    """Gives `load` the tensors of a state; it raises ValueError and the like where they do not fit.

    Raises WeightsError, and TrainingError naming what this command has otherwise.
    """
    tensors = tensors_from_file(path)
    now = json.loads(json.dumps(recipe))
    try:
        then = json.loads(bytes(tensors.pop(RECIPE).tolist()).decode())
        for name, value in now.items():
            if then.get(name) != value:
                what = _difference(name, then.get(name), value)
                raise TrainingError(f"{path} was made with {what}; give the same, or {otherwise}")
        load(tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{path} is no state of this training ({reason}); {otherwise}"
        ) from error


def copy_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Fills `own` with the values of the same names. Raises ValueError naming what does not fit."""
    for key in sorted(own.keys() | tensors.keys()):
        if key not in own or key not in tensors:
            raise ValueError(f"{key} is {'missing' if key in own else 'unexpected'}")
        if (own[key].shape, own[key].dtype) != (tensors[key].shape, tensors[key].dtype):
            raise ValueError(
                f"{key} is {tensors[key].dtype} {list(tensors[key].shape)}, not "
                f"{own[key].dtype} {list(own[key].shape)}"
            )
    for key, value in own.items():
        value.copy_(tensors[key])


def adam_with_moments(
    parameters: Iterable[Tensor],
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    fused: bool = False,
) -> torch.optim.Adam:
    """With its moments there from the start, so that a state of step 0 is like any other."""
    trained = list(parameters)
    adam = torch.optim.Adam(trained, learning_rate, betas=betas, fused=fused)
    for parameter in trained:
        zeros = torch.zeros_like(parameter, requires_grad=False)
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        adam.state[parameter] = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    return adam


def tensors_of_trained(values: Mapping[str, Tensor], adam: torch.optim.Adam) -> dict[str, Tensor]:
    """The values, and with each one that Adam trains its moments, as NAME.exp_avg."""
    found = {}
    for name, value in values.items():
        found[name] = value.detach()
        for key, moment in adam.state.get(value, {}).items():
            found[f"{name}.{key}"] = moment
    return found


def digest(values: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def _difference(name: str, then: object, now: object) -> str:
    if all(isinstance(value, str) and HASH.fullmatch(value) for value in (then, now)):
        return f"other {name} than this command has"
    return f"{name} {_short(then)}, this command has {_short(now)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
