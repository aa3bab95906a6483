"""An inverse-graphics training from start to end: steps, and at every stop a sheet and the state.

Beside the weights and their card lie NAME.state.safetensors, from which training goes on, and
contact sheets, NAME-000500.png.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from checkpoints import InverseGraphicsCard, write_inverse_graphics
from nets.textured import seen_from
from training.errors import TrainingError
from training.shapes.fit import InverseTraining
from training.shapes.object_sets import Origin
from training.shapes.sheet import sheet_of_training
from training.shapes.state import go_on, recipe_of, tensors_of
from training.state_file import state_path, write_state

AT_ONCE = 16


@dataclass(frozen=True)
class Run:
    """What the command was told beside the recipe."""

    out: Path  # .safetensors
    every: int  # steps from stop to stop
    background: tuple[str, ...]
    licences: list[str]


def run_inverse(training: InverseTraining, origin: Origin, run: Run, resume: bool) -> float:
    """Trains to the end and writes; the mean IoU with the silhouettes. Raises TrainingError."""
    if resume:
        go_on(training, state_path(run.out))
    steps = training.config.steps
    with tqdm(total=steps, initial=training.step, desc="inverse graphics", unit="step") as bar:
        while training.step < steps:
            losses = training.advance()
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
            if training.step % run.every == 0 or training.step == steps:
                sheet = run.out.with_name(f"{run.out.stem}-{training.step:06d}.png")
                sheet_of_training(training).save(sheet)
                write_state(state_path(run.out), tensors_of(training), recipe_of(training))
    measured = silhouettes_met(training)
    write_inverse_graphics(
        run.out, training.network.cpu().eval(), card_of(training, origin, run, measured)
    )
    return measured


@torch.no_grad()
def silhouettes_met(training: InverseTraining) -> float:
    """Mean intersection over union of silhouettes: every object's shape, from its first view, as
    each of its views sees it."""
    sets, template, total = training.sets, training.template, 0.0
    views = sets.codes.shape[1]
    for rows in torch.arange(len(sets)).split(max(1, AT_ONCE // views)):
        found = training.network(training.network_input(sets.images[rows, 0]))
        codes = sets.codes[rows].flatten().to(training.device)
        seen = seen_from(
            found.points.repeat_interleave(views, 0), template.faces, template.uv,
            found.texture.repeat_interleave(views, 0), training.cameras(codes),
            training.config.resolution,
        )  # fmt: skip
        silhouettes = training.scaled(sets.silhouettes[rows].flatten(0, 1)[:, None])[:, 0] >= 0.5
        covered = seen.face >= 0
        either = (covered | silhouettes).sum(dim=(1, 2)).clamp(min=1)
        total += float(((covered & silhouettes).sum(dim=(1, 2)) / either).sum())
    return total / sets.codes.numel()


def card_of(
    training: InverseTraining, origin: Origin, run: Run, measured: float
) -> InverseGraphicsCard:
    """What the weights do not say."""
    config, bank, sets = training.config, training.bank, training.sets
    told = asdict(config)
    network = told.pop("network")
    weights = {f"weight_{name}": value for name, value in told.pop("weights").items()}
    stream = {}
    if sets.numbers:
        ends = {"first_object": sets.numbers[0], "last_object": sets.numbers[-1]}
        stream = {"stream_seed": sets.stream_seed, **ends}
    return InverseGraphicsCard(
        format=1,
        kind="inverse-graphics",
        bundle_id=origin.bundle_id,
        **network,
        distance=round(float(bank.distance.mean()), 6),
        focal=round(float(bank.focal.mean()), 6),
        background=list(run.background),
        keypoints=list(origin.keypoints),
        silhouette=round(measured, 4),
        licences=run.licences,
        made={
            "by": "python -m training inverse-graphics",
            "objects": len(sets),
            "views": sets.codes.shape[1],
            **stream,
            **told,
            **weights,
        },
    )


def refuse_existing(out: Path, resume: bool) -> None:
    """Raises TrainingError for a name that cannot be written to, or holds somebody's weights."""
    if out.suffix != ".safetensors":
        raise TrainingError(f"--out is {out}; weights are written as .safetensors")
    if out.exists() and not resume:
        raise TrainingError(f"{out} exists; --resume goes on from its state, or give another --out")
