"""A refiner's training from start to end: steps, and checks at regular stops.

Between steps the source's images are added to its pool. A stop measures the drift of refined
images, then writes the weights, their card, NAME.state.safetensors, which training resumes from,
and a contact sheet, NAME-000500.png. A signal writes the state alone. When refined images have
moved too far, training ends there and the last check's weights stay.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoints import (
    Interrupted,
    RefinerCard,
    RegulariserCard,
    config_card_from_refiner,
    signals_held,
    write_refiner,
)
from nets.segmenter import Segmenter
from training.errors import RefinerError
from training.images.pool import FIRST, Pool
from training.refiner.config import RefinerTrainConfig
from training.refiner.drift import Drift, drift_between, text_from_drift
from training.refiner.segmenter import agreement_of, fit_segmenter
from training.refiner.train import RefinerTraining, refined_bytes
from training.resume import Recipe, digest, load_state, saved_text, state_path, write_state
from training.sheet import rows_from_images, sheet_from_rows

CHECKED = FIRST  # images whose drift a stop measures
SOURCE_IMAGES = "source images"  # key of their hash in a state's recipe
SHOWN = 8  # columns of a contact sheet


@dataclass(frozen=True)
class RefinerRunOptions:
    """Options that do not decide the weights: outputs, checks and their bounds."""

    out: Path  # .safetensors
    every: int  # steps between stops
    max_shift_px: float  # bounds; training ends at the first stop that exceeds one
    min_structure: float
    min_agreement: float
    segmenter_steps: int  # 0: no segmenter, no agreement
    licences: list[str]
    device: torch.device | None = None  # device of the networks; None: the CPU


def run_refiner(
    config: RefinerTrainConfig, source: Pool, real: Pool, options: RefinerRunOptions, resume: bool
) -> Drift:
    """Trains to the end and returns the last drift.

    Raises RefinerError when a loss is not finite or the drift exceeds a bound.
    """
    training = RefinerTraining(config, source, real.images, options.device)
    state, state_file = training.state, state_path(options.out)
    recipe = recipe_of(config, source, real)
    if resume:
        resume_training(training, state_file, recipe)
    training.fill_pool()
    seen = source.digest  # of the images that the steps until now drew from

    def save() -> None:
        write_state(state_file, state.tensors(), {**recipe, SOURCE_IMAGES: seen})

    drift, segmenter = None, None
    try:
        with tqdm(total=config.total, initial=state.step, desc="refiner", unit="step") as bar:
            while state.step < config.total:
                training.fill_pool(ahead=1)
                if segmenter is None and source.full:
                    segmenter = segmenter_of_source(source, config, options)
                with signals_held():
                    losses = training.advance()
                    seen = source.digest
                    bar.update()
                    bar.set_postfix(progress_texts(losses, source), refresh=False)
                    if state.step % options.every == 0 or state.step == config.total:
                        drift = check_and_write(training, source, real, options, segmenter, save)
                        sheet = sheet_path(options.out, state.step).name
                        bar.write(f"step {state.step}: {text_from_drift(drift)}; {sheet}")
                        save()
    except Interrupted as signal:
        with signals_held():
            save()
        saved = saved_text(state.step, state_file, "the same command with --resume")
        raise Interrupted(signal.number, saved) from None
    if drift is not None:
        return drift
    segmenter = segmenter_of_source(source, config, options)
    if not options.out.exists():  # killed behind its last step
        return check_and_write(training, source, real, options, segmenter, save)
    return measured(training, source, segmenter)[1]


def progress_texts(losses: dict[str, float], source: Pool) -> dict[str, str]:
    """What the bar shows after a step."""
    filled = {} if source.full else {"images": f"{len(source.images)}/{source.count}"}
    return {k: f"{v:.3f}" for k, v in losses.items()} | filled


def recipe_of(config: RefinerTrainConfig, source: Pool, real: Pool) -> Recipe:
    """Everything that decides the weights, except the source's images, which are not all there from
    the beginning, and the number of steps: a resumed training may run longer."""
    settings = asdict(config)
    settings.pop("steps")
    return {**settings, "source image count": source.count, "real images": digest(real.images)}


def resume_training(training: RefinerTraining, path: Path, recipe: Recipe) -> None:
    """Loads a state file, and draws the images that its steps drew from.

    Raises WeightsError, and TrainingError naming the option that differs.
    """
    remedy = "leave --resume out"
    load_state(path, recipe, training.state.load, remedy)
    if training.state.step > training.config.total:
        raise RefinerError(
            f"{path} is at step {training.state.step}, beyond the {training.config.total} of "
            "--steps, --warm-up and --critic-warm-up; raise --steps"
        )
    training.fill_pool()
    load_state(path, {SOURCE_IMAGES: training.source.digest}, lambda tensors: None, remedy)


def segmenter_of_source(
    source: Pool, config: RefinerTrainConfig, options: RefinerRunOptions
) -> Segmenter | None:
    """A segmenter trained on the source's images and masks; None without masks."""
    if source.masks is None or options.segmenter_steps == 0:
        return None
    return fit_segmenter(
        source.images, source.masks, options.segmenter_steps, config.seed, options.device
    )


def check_and_write(
    training: RefinerTraining,
    source: Pool,
    real: Pool,
    options: RefinerRunOptions,
    segmenter: Segmenter | None,
    save: Callable[[], None],
) -> Drift:
    """Writes the contact sheet, then the weights and card if the drift is within its bounds; before
    the first weights, `save` writes the state, so that a kill never leaves weights without one.

    Raises RefinerError when it is not.
    """
    state = training.state
    refined, drift = measured(training, source, segmenter)
    rows = rows_from_images(
        {
            "generated": source.images[:SHOWN],
            "the same, refined": refined[:SHOWN],
            "real, other images": real.images[:SHOWN],
        }
    )
    columns = [f"image {i}" for i in range(max(len(row.pictures) for row in rows))]
    sheet_from_rows(rows, columns).save(sheet_path(options.out, state.step))
    refuse_drift(drift, options, state.step)
    if not options.out.exists():
        save()
    write_refiner(options.out, state.average, card_of(training, source, real, options, drift))
    return drift


def sheet_path(out: Path, step: int) -> Path:
    """Path of the contact sheet of a stop."""
    return out.with_name(f"{out.stem}-{step:06d}.png")


def measured(
    training: RefinerTraining, source: Pool, segmenter: Segmenter | None
) -> tuple[Tensor, Drift]:
    """The first images after refining, uint8 [n, C, H, W], and their drift."""
    images = source.images[:CHECKED]
    refined = refined_bytes(training.state.average, images, training.config.seed)
    drift = drift_between(images, refined)
    if segmenter is not None:
        drift = replace(drift, agreement=agreement_of(segmenter, images, refined))
    return refined, drift


def refuse_drift(drift: Drift, options: RefinerRunOptions, step: int) -> None:
    """Raises RefinerError when a figure exceeds its bound, or is NaN."""
    shift, structure, agreement = drift.shift_px, drift.structure, drift.agreement
    figures = [
        ("shift_px", shift, options.max_shift_px, shift <= options.max_shift_px),
        ("structure", structure, options.min_structure, structure >= options.min_structure),
    ]
    if agreement is not None:
        bound = options.min_agreement
        figures.append(("agreement", agreement, bound, agreement >= bound))
    kept = (
        f"{options.out} keeps the last check's weights"
        if options.out.exists()
        else "nothing is written"
    )
    for name, value, bound, holds in figures:
        if not holds:
            raise RefinerError(
                f"at step {step} refined images no longer lie on their originals: {name} is "
                f"{value:.3f}, the limit {bound:g}; {kept}; give a larger --strength"
            )


def card_of(
    training: RefinerTraining, source: Pool, real: Pool, options: RefinerRunOptions, drift: Drift
) -> RefinerCard:
    """The card of the weights."""
    config = training.config
    settings = asdict(config)
    regulariser = settings.pop("regulariser")
    settings.pop("network")
    return RefinerCard(
        format=1,
        kind="refiner",
        generator_sha256=source.generator_sha256,
        height=source.images.shape[2],
        width=source.images.shape[3],
        grain_seed=config.seed,
        config=config_card_from_refiner(training.state.average),
        regulariser=RegulariserCard(**regulariser),
        shift_px=round(drift.shift_px, 4),
        structure=round(drift.structure, 4),
        agreement=None if drift.agreement is None else round(drift.agreement, 4),
        licences=options.licences,
        provenance={
            "by": "python -m training refiner",
            "source_images": len(source.images),
            "real_images": len(real.images),
            "step": training.state.step,
            **settings,
        },
    )
