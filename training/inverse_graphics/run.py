"""An inverse-graphics training from start to end: steps, and files at regular stops.

A stop writes NAME.state.safetensors, which training resumes from, and a contact sheet,
NAME-000500.png. A signal writes the state alone. The end writes the weights and their card.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints import InverseGraphicsCard, signals_held, write_inverse_graphics
from nets.textured import Seen, seen_from
from training.errors import TrainingError
from training.inverse_graphics.object_sets import SetsOrigin
from training.inverse_graphics.train import InverseGraphicsTraining
from training.options import check_suffix
from training.resume import (
    Recipe,
    copy_tensors,
    digest,
    load_state,
    saved_text,
    state_path,
    tensors_of_trained,
    write_state,
)
from training.sheet import rows_from_images, sheet_from_rows

BATCH = 16  # images per pass without gradients
SHEET_COLUMNS, SHEET_EXTENT = 10, 128  # images across; side of each, pixels
SETS = ("images", "silhouettes", "codes")  # tensors of the sets that decide the weights
SETS_OPTIONS = "of objects (--source, --objects, --views, --background)"  # for messages


@dataclass(frozen=True)
class InverseGraphicsRunOptions:
    """Options that do not decide the weights."""

    out: Path  # .safetensors
    every: int  # steps between stops
    background: tuple[str, ...]  # names of classes, for the card
    licences: list[str]


def run_inverse_graphics(
    training: InverseGraphicsTraining,
    origin: SetsOrigin,
    options: InverseGraphicsRunOptions,
    resume: bool,
) -> float:
    """Trains to the end, writes the weights, and returns the mean IoU with the silhouettes.

    Raises TrainingError.
    """
    state = state_path(options.out)
    if resume:
        resume_training(training, state)
    steps = training.config.steps
    bar = tqdm(total=steps, initial=training.step, desc="inverse graphics", unit="step")
    with signals_held() as held, bar:
        while training.step < steps:
            losses = training.advance()
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
            due = training.step % options.every == 0 or training.step == steps
            if due:
                sheet = options.out.with_name(f"{options.out.stem}-{training.step:06d}.png")
                sheet_of_training(training).save(sheet)
            if due or held:
                write_state(state, tensors_of(training), recipe_of(training))
            held.end(saved_text(training.step, state, "the same command with --resume"))
    measured = mean_silhouette_iou(training)
    card = card_of(training, origin, options, measured)
    with signals_held() as held:
        write_inverse_graphics(options.out, training.network.cpu().eval(), card)
        held.end(f"all of {options.out} was written")
    return measured


def recipe_of(training: InverseGraphicsTraining) -> Recipe:
    """Everything that decides the weights, also the number of steps: the learning rate depends on
    it. The sets come first, so that a message names them rather than the radius derived from
    them."""
    return {
        **{f"{name} {SETS_OPTIONS}": digest(getattr(training.sets, name)) for name in SETS},
        "cameras": [angle.tolist() for angle in vars(training.bank).values()],
        **asdict(training.config),
    }


def tensors_of(training: InverseGraphicsTraining) -> dict[str, Tensor]:
    """The state by name. The tensors are the live ones, not copies: do not modify them."""
    return {
        "step": torch.tensor(training.step),
        **tensors_of_trained(training.learnt, training.adam),
    }


def resume_training(training: InverseGraphicsTraining, path: Path) -> None:
    """Loads a state file. Raises WeightsError, and TrainingError naming the option that differs."""

    def load(tensors: dict[str, Tensor]) -> None:
        own = tensors_of(training)
        copy_tensors(own, tensors)
        training.step = int(own["step"])

    load_state(path, recipe_of(training), load, "leave --resume out")


@torch.no_grad()
def mean_silhouette_iou(training: InverseGraphicsTraining) -> float:
    """Mean IoU of silhouettes: the shape of each object's first view, rendered from all its
    views."""
    sets, template, total = training.sets, training.template, 0.0
    views = sets.codes.shape[1]
    batches = torch.arange(len(sets)).split(max(1, BATCH // views))
    for rows in tqdm(batches, desc="silhouettes", unit="batch"):
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


@torch.no_grad()
def sheet_of_training(training: InverseGraphicsTraining) -> Image.Image:
    """A contact sheet, one column per object.

    Rows: an image, its shape from the same camera with texture, the normals of that, the shape
    from another camera of the object, and the image of that camera.
    """
    sets, template = training.sets, training.template
    rows = torch.arange(min(SHEET_COLUMNS, len(sets)))
    views = sets.codes.shape[1]
    first = rows % views
    other = (first + views // 2) % views
    found = training.network(training.network_input(sets.images[rows, first]))
    other_light = training.network(training.network_input(sets.images[rows, other])).light

    def rendered(view: Tensor, light: Tensor) -> Seen:
        codes = sets.codes[rows, view].to(training.device)
        return seen_from(
            found.points, template.faces, template.uv, found.texture, training.cameras(codes),
            SHEET_EXTENT, light,
        )  # fmt: skip

    here, there = rendered(first, found.light), rendered(other, other_light)
    normals = torch.where((here.face >= 0)[:, None], here.normals * 0.5 + 0.5, 0.0)
    shown = [(x * 255).round().to(torch.uint8).cpu() for x in (here.color, normals, there.color)]
    titles = (
        "image", "its mesh, same camera", "normals of that", "its mesh, other camera",
        "image of that camera",
    )  # fmt: skip
    images = (sets.images[rows, first], *shown, sets.images[rows, other])
    shown_rows = rows_from_images(dict(zip(titles, images, strict=True)))
    return sheet_from_rows(shown_rows, [f"object {i}" for i in rows.tolist()])


def card_of(
    training: InverseGraphicsTraining,
    origin: SetsOrigin,
    options: InverseGraphicsRunOptions,
    measured: float,
) -> InverseGraphicsCard:
    """The card of the weights; `measured` is the mean IoU."""
    config, bank, sets = training.config, training.bank, training.sets
    settings = asdict(config)
    network = settings.pop("network")
    weights = {f"weight_{name}": value for name, value in settings.pop("weights").items()}
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
        background=list(options.background),
        keypoints=list(origin.keypoints),
        silhouette=round(measured, 4),
        licences=options.licences,
        provenance={
            "by": "python -m training inverse-graphics",
            "objects": len(sets),
            "views": sets.codes.shape[1],
            **stream,
            **settings,
            **weights,
        },
    )


def refuse_existing(out: Path, resume: bool) -> None:
    """Raises TrainingError for a wrong suffix, or an existing file that is not to be resumed."""
    check_suffix(out)
    for path in (out, state_path(out)):
        if path.exists() and not resume:
            raise TrainingError(
                f"{path} exists; --resume resumes its training, or name another --out"
            )
