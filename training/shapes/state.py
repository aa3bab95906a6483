"""What an inverse-graphics training goes on from: its state, the same recipe and the same sets."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from training.shapes.fit import InverseTraining
from training.state_file import Recipe, copy_tensors, digest, load_state, tensors_of_trained

SETS = ("images", "silhouettes", "codes")
BY = "of objects (--source, --objects, --views, --background)"


def recipe_of(training: InverseTraining) -> Recipe:
    """All that decides the weights. The learning rate falls over all steps, so their number is of
    it. The sets first: the radius in the network's configuration is theirs."""
    return {
        **{f"{name} {BY}": digest(getattr(training.sets, name)) for name in SETS},
        "cameras": [angle.tolist() for angle in vars(training.bank).values()],
        **asdict(training.config),
    }


def tensors_of(training: InverseTraining) -> dict[str, Tensor]:
    """All that changes from step to step; what is in it may not be changed."""
    return {
        "step": torch.tensor(training.step),
        **tensors_of_trained(training.learnt, training.adam),
    }


def go_on(training: InverseTraining, path: Path) -> None:
    """Raises WeightsError, and TrainingError naming what this command has otherwise."""

    def load(tensors: dict[str, Tensor]) -> None:
        own = tensors_of(training)
        copy_tensors(own, tensors)
        training.step = int(own["step"])

    load_state(path, recipe_of(training), load, "leave --resume out")
