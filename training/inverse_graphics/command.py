"""The verb `inverse-graphics`: sets of views of objects -> a network from image to mesh."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import torch

from nets.inverse_graphics import InverseGraphicsConfig
from nets.textured import Cameras
from training.errors import TrainingError
from training.inverse_graphics.config import InverseGraphicsTrainConfig, LossWeights
from training.inverse_graphics.downloaded_sets import sets_from_source
from training.inverse_graphics.object_sets import (
    OBJECTS,
    ObjectSets,
    SetsConfig,
    background_of,
    cameras_of_bank,
)
from training.inverse_graphics.run import (
    InverseGraphicsRunOptions,
    refuse_existing,
    run_inverse_graphics,
)
from training.inverse_graphics.train import InverseGraphicsTraining
from training.options import FILE, device_option, goes_on

FIT, NETWORK, WEIGHTS = InverseGraphicsTrainConfig(), InverseGraphicsConfig(), LossWeights()
AT_LEAST_1 = click.IntRange(1)
POSITIVE = click.FloatRange(0, min_open=True)
NOT_NEGATIVE = click.FloatRange(0)


@click.command("inverse-graphics")
@click.option(
    "--source",
    required=True,
    metavar="HOST:PORT|FOLDER",
    help="A running service whose bundle has masks and a view bank with azimuths, or a folder "
    "that `labelmint download --views-per-object` wrote from one.",
)
@click.option("--out", type=FILE, required=True, help="Weights to write (.safetensors), card too.")
@click.option("--resume", is_flag=True, help="Go on from the state beside --out, if there is one.")
@click.option(
    "--objects",
    type=AT_LEAST_1,
    help=f"The first of --source.  [default: {OBJECTS} of a service, all of a folder]",
)
@click.option("--views", type=AT_LEAST_1, help="Of each object; absent: all that there are.")
@click.option(
    "--background",
    multiple=True,
    help="A class that is not the object; may be repeated.  [default: the class of id 0]",
)
@click.option("--extent", default=NETWORK.extent, type=AT_LEAST_1, help="Pixels the network reads.")
@click.option("--texture", default=NETWORK.texture, type=AT_LEAST_1, help="Rows; a power of two.")
@click.option("--hidden", default=NETWORK.hidden, type=AT_LEAST_1, help="Width of its middle.")
@click.option(
    "--radius",
    type=POSITIVE,
    help="Of the sphere that is bent, object units; absent: as large as the silhouettes.",
)
@click.option("--tell-camera", is_flag=True, help="The network tells each image's camera too.")
@click.option(
    "--refine-cameras", is_flag=True, help="Learn corrections of the bank's angles, if coarse."
)
@click.option("--distance", default=6.0, type=POSITIVE, help="Of cameras whose own is not known.")
@click.option("--focal", default=2.4, type=POSITIVE, help="Likewise, over the image's extent.")
@click.option("--steps", default=FIT.steps, type=AT_LEAST_1)
@click.option("--batch", default=FIT.batch, type=AT_LEAST_1, help="Objects.")
@click.option("--resolution", default=FIT.resolution, type=click.IntRange(8), help="Drawn pixels.")
@click.option(
    "--halo", default=FIT.halo, type=POSITIVE, help="Pixels beside a silhouette that pull at it."
)
@click.option("--learning-rate", default=FIT.learning_rate, type=POSITIVE)
@click.option("--silhouette", default=WEIGHTS.silhouette, type=NOT_NEGATIVE, help="Weight.")
@click.option("--colour", default=WEIGHTS.colour, type=NOT_NEGATIVE, help="Weight.")
@click.option("--consistency", default=WEIGHTS.consistency, type=NOT_NEGATIVE, help="Weight.")
@click.option("--laplacian", default=WEIGHTS.laplacian, type=NOT_NEGATIVE, help="Weight.")
@click.option("--smoothness", default=WEIGHTS.smoothness, type=NOT_NEGATIVE, help="Weight.")
@click.option("--offset", default=WEIGHTS.offset, type=NOT_NEGATIVE, help="Weight.")
@click.option("--every", default=250, type=AT_LEAST_1, help="Steps between sheets and states.")
@click.option("--seed", default=FIT.seed, type=click.IntRange(0, 2**63 - 1))
@device_option
def inverse_graphics(
    source: str,
    out: Path,
    resume: bool,
    objects: int | None,
    views: int | None,
    background: tuple[str, ...],
    extent: int,
    texture: int,
    hidden: int,
    radius: float | None,
    tell_camera: bool,
    distance: float,
    focal: float,
    every: int,
    seed: int,
    device: torch.device,
    **told: Any,
) -> None:
    """Trains a network that turns one image into a textured mesh."""
    refuse_existing(out, resume)
    weights = LossWeights(
        **{f.name: told.pop(f.name) for f in fields(LossWeights) if f.name in told}
    )
    try:
        network = InverseGraphicsConfig(extent, hidden, texture, radius or 1.0, tell_camera)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    asked = SetsConfig(objects, views, extent, background, seed)
    sets, origin = sets_from_source(source, asked)
    bank = cameras_of_bank(origin, distance, focal)
    if radius is None:
        network = replace(network, radius=radius_of_sets(sets, bank))
    config = InverseGraphicsTrainConfig(network, weights, seed=seed, **told)
    out.parent.mkdir(parents=True, exist_ok=True)
    training = InverseGraphicsTraining(config, sets, bank, device)
    run = InverseGraphicsRunOptions(out, every, background_of(origin, asked), list(origin.licences))
    measured = run_inverse_graphics(training, origin, run, goes_on(out, resume))
    click.echo(
        f"wrote {out} and its card: silhouettes of {len(sets)} objects at IoU {measured:.3f}"
    )


def radius_of_sets(sets: ObjectSets, bank: Cameras) -> float:
    """Of a ball whose image is as large as the mean silhouette. Raises TrainingError where there is
    no object in any image."""
    covered = (sets.silhouettes >= 128).float().mean(dim=(2, 3))  # [O, V]
    units = (bank.distance / bank.focal)[sets.codes]  # that an image extent is wide at the object
    radius = float((covered / math.pi).sqrt().mul(units).mean())
    if radius == 0:
        raise TrainingError("no image shows anything but background; check --background")
    return round(radius, 6)
