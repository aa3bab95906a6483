"""State files: tensors that a training resumes from, and the recipe they were made with.

The recipe names everything that decides the final weights: settings by value, files and labels by
hash. A training resumes only if its own recipe is equal.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bundle.files import remove_left_files
from checkpoints import HeldSignal, tensors_from_file, write_tensors
from training.errors import TrainingError

RECIPE = "recipe"
SHA256 = re.compile("[0-9a-f]{64}")
MAX_SHOWN = 60  # characters of a recipe value in a message
Recipe = Mapping[str, object]  # values that JSON can hold


@dataclass(frozen=True)
class StateFile:
    """The state file of a training that its command writes regularly and resumes from."""

    path: Path
    recipe: Recipe
    save_every: int  # steps

    def resume(self, load: Callable[[dict[str, Tensor]], object]) -> None:
        """Passes the tensors of the state to `load`, if the file exists.

        Raises WeightsError, TrainingError.
        """
        if self.path.exists():
            load_state(self.path, self.recipe, load, "delete it, or name another --out")

    def save_after_step(
        self, step: int, tensors: Callable[[], Mapping[str, Tensor]], held: HeldSignal
    ) -> None:
        """Writes the state if it is due after this step, or if a signal ends the training here.

        Raises WeightsError, Interrupted.
        """
        if held or step % self.save_every == 0:
            write_state(self.path, tensors(), self.recipe)
        held.end(saved_text(step, self.path, "the same command"))

    def remove(self) -> None:
        """Deletes the file, and temporary files left by writers that were killed."""
        self.path.unlink(missing_ok=True)
        remove_left_files(self.path)


def state_path(out: Path) -> Path:
    """Path of the state file beside the weights `out`: NAME.state.safetensors."""
    return out.with_suffix(".state.safetensors")


def saved_text(step: int, path: Path, command: str) -> str:
    """What an interrupted training says; `command` goes on from the state file."""
    return f"step {step} is saved in {path}; {command} goes on from there"


def write_state(path: Path, tensors: Mapping[str, Tensor], recipe: Recipe) -> None:
    """Writes tensors and recipe atomically. Raises WeightsError."""
    text = torch.frombuffer(bytearray(json.dumps(recipe).encode()), dtype=torch.uint8)
    write_tensors(path, {**tensors, RECIPE: text})


def load_state(
    path: Path, recipe: Recipe, load: Callable[[dict[str, Tensor]], object], remedy: str
) -> None:
    """Passes the tensors of a state file to `load`, which raises ValueError if they do not fit.

    `remedy` ends the error message, e.g. "delete it". Raises WeightsError, or TrainingError naming
    the first recipe entry that differs.
    """
    tensors = tensors_from_file(path)
    current = json.loads(json.dumps(recipe))
    try:
        saved = json.loads(bytes(tensors.pop(RECIPE).tolist()).decode())
        for name, value in current.items():
            if saved.get(name) != value:
                difference = _difference(name, saved.get(name), value)
                raise TrainingError(
                    f"{path} was made with {difference}; give the same, or {remedy}"
                )
        load(tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path} is no state of this training ({reason}); {remedy}") from error


def copy_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copies `tensors` into the tensors of the same names in `own`, in place.

    Raises ValueError naming the first tensor that is missing, unexpected, or of another shape or
    dtype.
    """
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
    """Adam with its moments allocated, so that a state has the same tensors at step 0 as later."""
    trained = list(parameters)
    adam = torch.optim.Adam(trained, learning_rate, betas=betas, fused=fused)
    for parameter in trained:
        zeros = torch.zeros_like(parameter, requires_grad=False)
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        adam.state[parameter] = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    return adam


def tensors_of_trained(values: Mapping[str, Tensor], adam: torch.optim.Adam) -> dict[str, Tensor]:
    """The values by name, and the Adam state of each trained one as NAME.step, NAME.exp_avg and
    NAME.exp_avg_sq."""
    found = {}
    for name, value in values.items():
        found[name] = value.detach()
        for key, moment in adam.state.get(value, {}).items():
            found[f"{name}.{key}"] = moment
    return found


def digest(values: Tensor) -> str:
    """SHA-256 of the values of a tensor on the CPU."""
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def _difference(name: str, saved: object, current: object) -> str:
    if all(isinstance(value, str) and SHA256.fullmatch(value) for value in (saved, current)):
        return f"other {name} than this command has"
    return f"{name} {_shortened(saved)}, this command has {_shortened(current)}"


def _shortened(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
