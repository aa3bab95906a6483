"""What a refiner's training goes on from: the same recipe and the same images."""

from dataclasses import asdict
from pathlib import Path

from training.errors import RefinerError
from training.fit_refiner import RefinerTraining
from training.image_pool import Pool
from training.refiner_config import RefinerFit
from training.state_file import Recipe, digest, load_state


def recipe_of(config: RefinerFit, source: Pool, real: Pool) -> Recipe:
    """All that decides the weights but the number of steps."""
    told = asdict(config)
    told.pop("steps")
    return {**told, "source images": digest(source.images), "real images": digest(real.images)}


def go_on(training: RefinerTraining, path: Path, recipe: Recipe) -> None:
    """Raises WeightsError, and TrainingError naming what this command has otherwise."""
    load_state(path, recipe, training.state.load, "leave --resume out")
    if training.state.step > training.config.total:
        raise RefinerError(
            f"{path} is at step {training.state.step}, beyond the {training.config.total} asked for"
        )
