"""A refiner's training from start to end: steps, and at every stop the checks and the files.

Beside the weights and their card lie NAME.state.safetensors, from which training goes on, and a
contact sheet of every stop, NAME-000500.png.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoints import (
    RefinerCard,
    RegulariserCard,
    config_card_from_refiner,
    write_refiner,
)
from nets.segmenter import Segmenter
from training.errors import RefinerError
from training.images.sources import Pool
from training.refiner.config import RefinerFit
from training.refiner.drift import Geometry, geometry_of
from training.refiner.segmenter import agreement_of, fit_segmenter
from training.refiner.train import RefinerTraining, refined_bytes
from training.resume import Recipe, digest, load_state, state_path, write_state
from training.sheet import sheet_from_rows

CHECKED, SHOWN = 64, 8  # images at every stop


@dataclass(frozen=True)
class Run:
    """What the command was told beside the recipe."""

    out: Path  # .safetensors
    every: int  # steps from stop to stop
    max_shift_px: float  # passed at a stop, training ends
    min_structure: float
    min_agreement: float
    segmenter_steps: int  # 0: no segmenter
    licences: list[str]
    device: torch.device | None = None  # of the networks; None: the CPU


def run_refiner(config: RefinerFit, source: Pool, real: Pool, run: Run, resume: bool) -> Geometry:
    """Trains to the end; raises RefinerError when a loss or the geometry goes out of bounds."""
    training = RefinerTraining(config, source.images, real.images, run.device)
    recipe = recipe_of(config, source, real)
    if resume:
        go_on(training, state_path(run.out), recipe)
    segmenter = segmenter_of_source(source, config, run)
    state, found = training.state, None
    with tqdm(total=config.total, initial=state.step, desc="refiner", unit="step") as bar:
        while state.step < config.total:
            losses = training.advance()
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
            if state.step % run.every == 0 or state.step == config.total:
                found = check_and_write(training, source, real, run, segmenter)
                write_state(state_path(run.out), training.state.tensors(), recipe)
                sheet = sheet_path(run.out, state.step).name
                bar.write(f"step {state.step}: {words_from_geometry(found)}; {sheet}")
    return found or measured(training, source, segmenter)[1]


def segmenter_of_source(source: Pool, config: RefinerFit, run: Run) -> Segmenter | None:
    """What sees shapes in images, trained on the source's masks; None where there are none."""
    if source.masks is None or run.segmenter_steps == 0:
        return None
    return fit_segmenter(source.images, source.masks, run.segmenter_steps, config.seed, run.device)


def check_and_write(
    training: RefinerTraining, source: Pool, real: Pool, run: Run, segmenter: Segmenter | None
) -> Geometry:
    """Measures and draws; when all is well, the weights are written. Raises RefinerError."""
    state = training.state
    refined, found = measured(training, source, segmenter)
    rows = [source.images[:SHOWN], refined[:SHOWN], real.images[:SHOWN]]
    sheet_from_rows(rows).save(sheet_path(run.out, state.step))
    refuse_moved(found, run, state.step)
    write_refiner(run.out, state.average, card_of(training, source, real, run, found))
    return found


def measured(
    training: RefinerTraining, source: Pool, segmenter: Segmenter | None
) -> tuple[Tensor, Geometry]:
    """The first images, refined, uint8 [n, C, H, W], and how they lie on their originals."""
    images = source.images[:CHECKED]
    refined = refined_bytes(training.state.average, images, training.config.seed)
    found = geometry_of(images, refined)
    if segmenter is not None:
        found = replace(found, agreement=agreement_of(segmenter, images, refined))
    return refined, found


def words_from_geometry(found: Geometry) -> str:
    """For people."""
    words = f"moved {found.shift_px:.2f} px, structure {found.structure:.3f}"
    return words if found.agreement is None else f"{words}, agreement {found.agreement:.3f}"


def refuse_moved(found: Geometry, run: Run, step: int) -> None:
    """Raises RefinerError when a bound is passed; a NaN passes every bound."""
    figures = [
        ("shift_px", found.shift_px, run.max_shift_px, found.shift_px <= run.max_shift_px),
        ("structure", found.structure, run.min_structure, found.structure >= run.min_structure),
    ]
    if (seen := found.agreement) is not None:
        figures.append(("agreement", seen, run.min_agreement, seen >= run.min_agreement))
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
        agreement=None if found.agreement is None else round(found.agreement, 4),
        licences=run.licences,
        provenance={
            "by": "python -m training refiner",
            "source_images": len(source.images),
            "real_images": len(real.images),
            "step": training.state.step,
            **told,
        },
    )


def sheet_path(out: Path, step: int) -> Path:
    """The contact sheet of a stop."""
    return out.with_name(f"{out.stem}-{step:06d}.png")


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
