"""The file an inverse-graphics training goes on from: its state, and what it was told.

A training goes on only with the same recipe and the same sets.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from checkpoints import tensors_from_file, write_tensors
from training.errors import TrainingError
from training.shapes.fit import InverseTraining

ADAM = ("exp_avg", "exp_avg_sq", "step")
SETS = ("images", "silhouettes", "codes")


def recipe_text(training: InverseTraining) -> str:
    """JSON of all that decides the weights. The learning rate falls over all steps, so their
    number is of it."""
    sets = training.sets
    told = asdict(training.config)
    for name in SETS:
        told[name] = hashlib.sha256(getattr(sets, name).numpy().tobytes()).hexdigest()
    told["cameras"] = [angle.tolist() for angle in vars(training.bank).values()]
    return json.dumps(told)


def write_state(training: InverseTraining, path: Path) -> None:
    """Writes the state in one step."""
    text = recipe_text(training).encode()
    tensors = {
        "recipe": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        "step": torch.tensor(training.step),
    }
    for name, parameter in training.learnt.items():
        tensors[f"value.{name}"] = parameter.detach().cpu()
        for key in ADAM:
            tensors[f"{key}.{name}"] = training.adam.state[parameter][key].cpu()
    write_tensors(path, tensors)


def load_state(training: InverseTraining, path: Path) -> None:
    """Raises WeightsError, and TrainingError naming what this command has otherwise."""
    tensors = tensors_from_file(path)
    try:
        then = json.loads(bytes(tensors["recipe"].tolist()).decode())
        now = json.loads(recipe_text(training))
        # The sets first: the radius in the network's configuration is theirs.
        for name in sorted(now, key=lambda name: name not in SETS):
            if then.get(name) != now[name] and name in SETS:
                raise TrainingError(
                    f"{path} was made with other {name} of objects than this command has; give the "
                    "same --source, --objects, --views and --background, or leave --resume out"
                )
            if then.get(name) != now[name]:
                raise TrainingError(
                    f"{path} was made with {name} {_short(then.get(name))}, this command has "
                    f"{_short(now[name])}; give the same, or leave --resume out"
                )
        with torch.no_grad():
            for name, parameter in training.learnt.items():
                parameter.copy_(tensors[f"value.{name}"])
                training.adam.state[parameter] = {
                    key: tensors[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                    for key in ADAM
                }
        training.step = int(tensors["step"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no state of this training: {error}") from error


def state_path(out: Path) -> Path:
    """Where training goes on from."""
    return out.with_suffix(".state.safetensors")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:56]}..."
