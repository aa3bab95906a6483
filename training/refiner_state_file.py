"""The file a refiner's training goes on from: its state, and what it was told.

A training goes on only with the same recipe and the same images.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from checkpoints import tensors_from_file, write_tensors
from training.errors import RefinerError
from training.fit_refiner import RefinerTraining
from training.image_pool import Pool
from training.refiner_config import RefinerFit

RECIPE = "recipe"


def recipe_text(config: RefinerFit, source: Pool, real: Pool) -> str:
    """JSON of all that decides the weights but the number of steps."""
    told = asdict(config)
    told.pop("steps")
    images = {"source images": source.images, "real images": real.images}
    return json.dumps(told | {name: digest(value) for name, value in images.items()})


def digest(images: Tensor) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


def write_state(training: RefinerTraining, path: Path, recipe: str) -> None:
    """Writes the state in one step."""
    text = torch.frombuffer(bytearray(recipe.encode()), dtype=torch.uint8)
    write_tensors(path, training.state.tensors() | {RECIPE: text})


def load_state(training: RefinerTraining, path: Path, recipe: str) -> None:
    """Raises WeightsError, and RefinerError naming what this command has otherwise."""
    tensors = tensors_from_file(path)
    try:
        then = json.loads(bytes(tensors.pop(RECIPE).tolist()).decode())
        now = json.loads(recipe)
        for name in now:
            if then.get(name) != now[name]:
                raise RefinerError(
                    f"{path} was made with {name} {then.get(name)}, this command has {now[name]}; "
                    "give the same, or leave --resume out"
                )
        training.state.load(tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RefinerError(f"{path} is no state of this training: {error}") from error
    if training.state.step > training.config.total:
        raise RefinerError(
            f"{path} is at step {training.state.step}, beyond the {training.config.total} asked for"
        )


def state_path(out: Path) -> Path:
    """Where training goes on from."""
    return out.with_suffix(".state.safetensors")
