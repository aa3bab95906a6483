"""A refiner's training from start to end: steps, and at every stop the checks and the files.

Beside the weights and their card lie NAME.state.safetensors, from which training goes on, and a
contact sheet of every stop, NAME-000500.png.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoints import (
    RefinerCard,
    RegulariserCard,
    config_card_from_refiner,
    tensors_from_file,
    write_refiner,
    write_tensors,
)
from training.errors import RefinerError
from training.fit_refiner import RefinerTraining, refined_bytes
from training.geometry import Geometry, geometry_of
from training.image_pool import Pool
from training.refiner_config import RefinerFit
from training.refiner_sheet import sheet_from_rows

CHECKED, SHOWN = 64, 8  # images at every stop
RECIPE = "recipe"


@dataclass(frozen=True)
class Run:
    """What the command was told beside the recipe."""

    out: Path  # .safetensors
    every: int  # steps from stop to stop
    max_shift_px: float  # passed at a stop, training ends
    min_structure: float
    licences: list[str]


def run_refiner(config: RefinerFit, source: Pool, real: Pool, run: Run, resume: bool) -> Geometry:
    """Trains to the end; raises RefinerError when a loss or the geometry goes out of bounds."""
    training = RefinerTraining(config, source.images, real.images)
    recipe = recipe_text(config, source, real)
    if resume:
        load_state(training, state_path(run.out), recipe)
    state, found = training.state, None
    with tqdm(total=config.total, initial=state.step, desc="refiner", unit="step") as bar:
        while state.step < config.total:
            losses = training.advance()
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
            if state.step % run.every == 0 or state.step == config.total:
                found = check_and_write(training, source, real, run)
                write_state(training, state_path(run.out), recipe)
                bar.write(
                    f"step {state.step}: moved {found.shift_px:.2f} px, structure "
                    f"{found.structure:.3f}; {sheet_path(run.out, state.step).name}"
                )
    return found or geometry_now(training, source)


def check_and_write(training: RefinerTraining, source: Pool, real: Pool, run: Run) -> Geometry:
    """Measures and draws; when all is well, the weights are written. Raises RefinerError."""
    state = training.state
    images = source.images[:CHECKED]
    refined = refined_bytes(state.average, images, training.config.seed)
    rows = [images[:SHOWN], refined[:SHOWN], real.images[:SHOWN]]
    sheet_from_rows(rows).save(sheet_path(run.out, state.step))
    found = geometry_of(images, refined)
    refuse_moved(found, run, state.step)
    write_refiner(run.out, state.average, card_of(training, source, real, run, found))
    return found


def geometry_now(training: RefinerTraining, source: Pool) -> Geometry:
    """The geometry of the refiner as it is."""
    images = source.images[:CHECKED]
    return geometry_of(images, refined_bytes(training.state.average, images, training.config.seed))


def refuse_moved(found: Geometry, run: Run, step: int) -> None:
    """Raises RefinerError when a bound is passed; a NaN passes every bound."""
    figures = (
        ("shift_px", found.shift_px, run.max_shift_px, found.shift_px <= run.max_shift_px),
        ("structure", found.structure, run.min_structure, found.structure >= run.min_structure),
    )
    kept = f"{run.out} keeps the last stop's weights" if run.out.exists() else "nothing is written"
    for name, value, bound, holds in figures:
        if not holds:
            raise RefinerError(
                f"at step {step} refined images no longer lie on their originals: {name} is "
                f"{value:.3f}, the bound {bound:g}; {kept}; give a larger --strength"
            )


def card_of(
    training: RefinerTraining, source: Pool, real: Pool, run: Run, found: Geometry
) -> RefinerCard:
    """What the weights do not say."""
    config = training.config
    told = asdict(config)
    regulariser = told.pop("regulariser")
    told.pop("network")
    return RefinerCard(
        format=1,
        kind="refiner",
        generator_sha256=source.generator_sha256,
        height=source.images.shape[2],
        width=source.images.shape[3],
        grain_seed=config.seed,
        config=config_card_from_refiner(training.state.average),
        regulariser=RegulariserCard(**regulariser),
        shift_px=round(found.shift_px, 4),
        structure=round(found.structure, 4),
        licences=run.licences,
        made={
            "by": "python -m training refiner",
            "source_images": len(source.images),
            "real_images": len(real.images),
            "step": training.state.step,
            **told,
        },
    )


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


def sheet_path(out: Path, step: int) -> Path:
    """The contact sheet of a stop."""
    return out.with_name(f"{out.stem}-{step:06d}.png")
