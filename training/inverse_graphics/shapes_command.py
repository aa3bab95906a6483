"""python -m training shapes: images, or objects with several views -> textured meshes."""

import math
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from checkpoints import inverse_graphics_from_file, sha256_of_file
from training.errors import TrainingError
from training.inverse_graphics.config import template
from training.inverse_graphics.from_images import (
    ViewAngles,
    subjects_from_folder,
    subjects_from_source,
)
from training.inverse_graphics.keypoint_files import Positions, pose_from_file
from training.inverse_graphics.mesh_files import MeshLimits
from training.inverse_graphics.object_sets import SetsConfig
from training.inverse_graphics.write import (
    ShapesConfig,
    Subject,
    SubjectReport,
    refuse_existing_report,
    write_shapes,
)
from training.options import (
    FILE,
    FOLDER,
    MAX_STREAM_SEED,
    device_option,
    folder_out_option,
    object_options,
    seed_option,
)

OBJECTS = 16  # default number of objects from a service
AZIMUTH, ELEVATION = click.FloatRange(-360, 360), click.FloatRange(-90, 90)


@click.command()
@click.option(
    "--network",
    "network_path",
    type=FILE,
    required=True,
    help="Weights that `inverse-graphics` wrote.",
)
@click.option("--images", type=FOLDER, help="Folder of pictures, of any size.")
@click.option(
    "--masks",
    type=FOLDER,
    help="Folder of a mask NAME.png for each picture NAME of --images, 0 off the object; the "
    "report then has the IoU of silhouettes.",
)
@click.option(
    "--azimuth",
    type=AZIMUTH,
    help="Azimuth in degrees of the cameras of --images.  [default: the network's prediction, or "
    "0]",
)
@click.option(
    "--elevation",
    type=ELEVATION,
    help="Elevation in degrees of the cameras of --images.  [default: the network's prediction, or "
    "0]",
)
@click.option(
    "--source",
    metavar="HOST:PORT|FOLDER",
    help="Running service, or a folder that `labelmint download --views-per-object` wrote, in "
    "place of --images.",
)
@object_options(OBJECTS)
@seed_option("Seed of a service's stream.  [default: 0]", None, MAX_STREAM_SEED)
@click.option(
    "--pose",
    type=FILE,
    help='JSON file of keypoints of --source and the positions to move them to, e.g. {"chin": '
    "[0, -1, 0]}.",
)
@folder_out_option("the meshes, pictures and report.json")
@click.option(
    "--resolution",
    type=click.IntRange(8, 4096),
    default=ShapesConfig.resolution,
    help="Side in pixels of the depth, normal and mask pictures.",
)
@click.option(
    "--max-inverted",
    type=click.FloatRange(0, 1),
    default=MeshLimits.inverted,
    help="Share of inverted or collapsed faces above which a mesh is degenerate.",
)
@click.option(
    "--keep-flagged", is_flag=True, help="Also write the files of degenerate (flagged) meshes."
)
@device_option
def shapes(
    network_path: Path,
    images: Path | None,
    masks: Path | None,
    azimuth: float | None,
    elevation: float | None,
    source: str | None,
    objects: int | None,
    views: int | None,
    seed: int | None,
    pose: Path | None,
    out: Path,
    resolution: int,
    max_inverted: float,
    keep_flagged: bool,
    device: torch.device,
) -> None:
    """Write each object's mesh, pictures and 3D keypoints.

    Meshes are GLB and OBJ; 3D keypoints need --source. report.json has the measures of each mesh.
    Degenerate meshes are flagged and not written.
    """
    _check_usage(
        images is not None,
        source is not None,
        {"--masks": masks, "--azimuth": azimuth, "--elevation": elevation},
        {"--objects": objects, "--views": views, "--seed": seed, "--pose": pose},
    )
    from_folder = source is not None and Path(source).is_dir()
    if from_folder and seed is not None:
        raise click.UsageError("--seed is for a service; the objects of a folder are fixed")
    for name, value in {"--azimuth": azimuth, "--elevation": elevation}.items():
        if value is not None and math.isnan(value):  # FloatRange accepts NaN
            raise click.UsageError(f"{name} is nan; it must be a number of degrees")
    refuse_existing_report(out)
    network, card = inverse_graphics_from_file(network_path)
    network.to(device)
    mesh = template(torch.device("cpu"))
    positions: Positions = pose_from_file(pose, card.keypoints) if pose else {}
    subjects: list[Subject] = []
    if images is not None:
        if images.resolve() == out.resolve():
            raise TrainingError(f"--out {out} is the folder of --images; name another one")
        angles = ViewAngles(*(None if a is None else math.radians(a) for a in (azimuth, elevation)))
        subjects = subjects_from_folder(images, masks, angles, network, card, device)
    if source is not None:
        count = objects if from_folder else objects or OBJECTS
        sets_config = SetsConfig(count, views, card.extent, tuple(card.background), seed or 0)
        subjects, origin = subjects_from_source(source, sets_config, network, card, mesh, device)
        if origin.bundle_id != card.bundle_id:
            click.echo(f"note: {network_path} was trained on another bundle, {card.bundle_id}")
        unknown = [name for name in positions if name not in origin.keypoints]
        if unknown:
            raise TrainingError(f"--pose {pose}: {source} has no keypoint {unknown[0]} to move")
        if not origin.keypoints:
            click.echo(f"note: the bundle of {source} has no keypoints; shapes only")
    provenance = {
        "by": "python -m training shapes",
        "network_sha256": sha256_of_file(network_path),
        "images": images and str(images),
        "source": source,
        "seed": None if source is None or from_folder else seed or 0,
        "resolution": resolution,
        "keep_flagged": keep_flagged,
    }
    config = ShapesConfig(resolution, MeshLimits(inverted=max_inverted), keep_flagged, positions)
    _print_summary(write_shapes(out, subjects, card, mesh, config, provenance), out)


def _print_summary(reports: Sequence[SubjectReport], out: Path) -> None:
    for report in reports:
        for flag in report.flags:
            click.echo(f"flagged: {report.name}: {flag}")
    ious = [report.silhouette_iou for report in reports if report.silhouette_iou is not None]
    if ious:
        click.echo(f"silhouettes: mean IoU {sum(ious) / len(ious):.3f} of {len(ious)} objects")
    written = sum(bool(report.files) for report in reports)
    flagged = sum(bool(report.flags) for report in reports)
    click.echo(f"wrote {written} of {len(reports)} shapes to {out}; {flagged} flagged")


def _check_usage(
    images: bool, source: bool, of_images: dict[str, object], of_source: dict[str, object]
) -> None:
    """Raises click.UsageError for both or neither source, or for options of the other one."""
    if images == source:
        raise click.UsageError("give either --images or --source")
    for name, value in (of_source if images else of_images).items():
        if value is not None:
            raise click.UsageError(f"{name} is for {'--source' if images else '--images'}")
