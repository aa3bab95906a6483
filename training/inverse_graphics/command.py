"""python -m training inverse-graphics: multi-view sets -> a network from image to mesh."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import torch

from checkpoints import made_folder
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
from training.options import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    batch_option,
    can_resume,
    device_option,
    every_option,
    learning_rate_option,
    object_options,
    resume_option,
    seed_option,
    weights_out_option,
)

DEFAULTS, NETWORK, WEIGHTS = InverseGraphicsTrainConfig(), InverseGraphicsConfig(), LossWeights()


@click.command("inverse-graphics")
@click.option(
    "--source",
    required=True,
    metavar="HOST:PORT|FOLDER",
    help="Running service whose bundle has masks and a view bank with azimuths, or a folder that "
    "`labelmint download --views-per-object` wrote from one.",
)
@weights_out_option("its card (.toml), state and contact sheets")
@resume_option
@object_options(OBJECTS)
@click.option(
    "--background",
    multiple=True,
    help="Name of a class that is not the object; may be repeated.  [default: the class of id 0]",
)
@click.option(
    "--extent",
    default=NETWORK.extent,
    type=AT_LEAST_1,
    help="Side in pixels of the square images that the network reads.",
)
@click.option(
    "--texture",
    default=NETWORK.texture,
    type=AT_LEAST_1,
    help="Number of rows of the texture, a power of two; it has twice as many columns.",
)
@click.option(
    "--hidden",
    default=NETWORK.hidden,
    type=AT_LEAST_1,
    help="Width of the layer between the encoder and its outputs.",
)
@click.option(
    "--radius",
    type=POSITIVE,
    help="Radius of the sphere that is deformed, in object units.  [default: from the mean area of "
    "the silhouettes]",
)
@click.option(
    "--tell-camera", is_flag=True, help="Let the network also predict the camera of an image."
)
@click.option(
    "--refine-cameras",
    is_flag=True,
    help="Learn corrections of the bank's azimuths and elevations, for a bank with coarse angles.",
)
@click.option(
    "--distance",
    default=6.0,
    type=POSITIVE,
    help="Distance of cameras whose distance is unknown, in object units.",
)
@click.option(
    "--focal",
    default=2.4,
    type=POSITIVE,
    help="Focal length of cameras whose focal length is unknown, in image extents.",
)
@click.option("--steps", default=DEFAULTS.steps, type=AT_LEAST_1, help="Number of steps of Adam.")
@batch_option("Objects per step.", DEFAULTS.batch)
@click.option(
    "--resolution",
    default=DEFAULTS.resolution,
    type=click.IntRange(8),
    help="Side in pixels of the rendered images that losses compare.",
)
@click.option(
    "--halo",
    default=DEFAULTS.halo,
    type=POSITIVE,
    help="Width in pixels of the soft edge of rendered silhouettes, through which gradients flow.",
)
@learning_rate_option(
    DEFAULTS.learning_rate, "at the first step; it falls to a hundredth along a cosine"
)
@click.option(
    "--silhouette",
    default=WEIGHTS.silhouette,
    type=NOT_NEGATIVE,
    help="Weight of the silhouettes' loss, 1 - IoU.",
)
@click.option(
    "--colour",
    default=WEIGHTS.colour,
    type=NOT_NEGATIVE,
    help="Weight of the mean absolute difference of colors.",
)
@click.option(
    "--consistency",
    default=WEIGHTS.consistency,
    type=NOT_NEGATIVE,
    help="Weight of the squared distance between the shapes of an object's views.",
)
@click.option(
    "--laplacian",
    default=WEIGHTS.laplacian,
    type=NOT_NEGATIVE,
    help="Weight of the squared Laplacian of vertex offsets.",
)
@click.option(
    "--smoothness",
    default=WEIGHTS.smoothness,
    type=NOT_NEGATIVE,
    help="Weight of the angles between neighboring faces.",
)
@click.option(
    "--offset",
    default=WEIGHTS.offset,
    type=NOT_NEGATIVE,
    help="Weight of the squared offsets of vertices from the sphere.",
)
@every_option("saves of the state and a contact sheet")
@seed_option("Seed of the weights, the random draws and a service's stream.", DEFAULTS.seed)
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
    **settings: Any,
) -> None:
    """Train a network from one image to a textured mesh.

    It learns from images, masks and cameras of objects seen from several views.
    """
    refuse_existing(out, resume)
    names = {field.name for field in fields(LossWeights)} & settings.keys()
    weights = LossWeights(**{name: settings.pop(name) for name in names})
    try:
        network = InverseGraphicsConfig(extent, hidden, texture, radius or 1.0, tell_camera)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    sets_config = SetsConfig(objects, views, extent, background, seed)
    sets, origin = sets_from_source(source, sets_config)
    bank = cameras_of_bank(origin, distance, focal)
    if radius is None:
        network = replace(network, radius=radius_of_sets(sets, bank))
    config = InverseGraphicsTrainConfig(network, weights, seed=seed, **settings)
    with made_folder(out.parent):
        training = InverseGraphicsTraining(config, sets, bank, device)
        options = InverseGraphicsRunOptions(
            out, every, background_of(origin, sets_config), list(origin.licences)
        )
        iou = run_inverse_graphics(training, origin, options, can_resume(out, resume))
        click.echo(f"wrote {out} and its card: silhouettes of {len(sets)} objects at IoU {iou:.3f}")


def radius_of_sets(sets: ObjectSets, bank: Cameras) -> float:
    """Radius of a ball whose image is as large as the mean silhouette, in object units.

    A silhouette that covers the share s of an image has the area of a disc of radius sqrt(s / pi)
    image extents; at the object, an extent is distance / focal object units wide. Raises
    TrainingError when no image shows an object.
    """
    covered = (sets.silhouettes >= 128).float().mean(dim=(2, 3))  # [O, V]
    extents = (bank.distance / bank.focal)[sets.codes]  # [O, V], in object units
    radius = float((covered / math.pi).sqrt().mul(extents).mean())
    if radius == 0:
        raise TrainingError("no image shows anything but background; check --background")
    return round(radius, 6)
