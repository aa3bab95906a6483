"""An inverse-graphics training from start to end: steps, and at every stop a sheet and the state.

Beside the weights and their card lie NAME.state.safetensors, from which training goes on, and
contact sheets, NAME-000500.png.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints import InverseGraphicsCard, write_inverse_graphics
from nets.textured import Seen, seen_from
from training.errors import TrainingError
from training.inverse_graphics.object_sets import Origin
from training.inverse_graphics.train import InverseTraining
from training.resume import (
    Recipe,
    copy_tensors,
    digest,
    load_state,
    state_path,
    tensors_of_trained,
    write_state,
)
from training.sheet import sheet_from_rows

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
        provenance={
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


SHOWN, EXTENT = 10, 128  # columns, and pixels of each


@torch.no_grad()
def sheet_of_training(training: InverseTraining) -> Image.Image:
    """By rows: an image; its shape from the same camera, with its texture, and its normals; the
    shape from another camera of the object, and the image that belongs there."""
    sets, template = training.sets, training.template
    rows = torch.arange(min(SHOWN, len(sets)))
    views = sets.codes.shape[1]
    first = rows % views
    other = (first + views // 2) % views
    found = training.network(training.network_input(sets.images[rows, first]))
    light = training.network(training.network_input(sets.images[rows, other])).light

    def seen(view: Tensor, lit: Tensor) -> Seen:
        codes = sets.codes[rows, view].to(training.device)
        return seen_from(
            found.points, template.faces, template.uv, found.texture, training.cameras(codes),
            EXTENT, lit,
        )  # fmt: skip

    here, there = seen(first, found.light), seen(other, light)
    facing = torch.where((here.face >= 0)[:, None], here.normals * 0.5 + 0.5, 0.0)
    drawn = [here.colour, facing, there.colour]
    own, shown, beside = [(x * 255).round().to(torch.uint8).cpu() for x in drawn]
    return sheet_from_rows([sets.images[rows, first], own, shown, beside, sets.images[rows, other]])
