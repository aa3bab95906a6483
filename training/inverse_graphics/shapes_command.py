"""python -m training shapes: images, or objects of a stream -> textured meshes."""

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
from training.options import FILE, FOLDER, device_option

OBJECTS = 16
ANGLE = click.FloatRange(-360, 360)


@click.command()
@click.option("--network", "network_path", type=FILE, required=True, help="Of inverse-graphics.")
@click.option("--images", type=FOLDER, help="Folder of pictures, of any size.")
@click.option(
    "--masks", type=FOLDER, help="NAME.png for --images; the object is where it is not 0."
)
@click.option("--azimuth", type=ANGLE, help="Of --images, degrees; absent: the network's, or 0.")
@click.option(
    "--elevation",
    type=click.FloatRange(-90, 90),
    help="Of --images, degrees; absent: the network's, or 0.",
)
@click.option(
    "--source",
    metavar="HOST:PORT|FOLDER",
    help="In place of --images: a service, or a folder that `labelmint download "
    "--views-per-object` wrote.",
)
@click.option(
    "--objects",
    type=click.IntRange(1),
    help=f"The first of --source.  [default: {OBJECTS} of a service, all of a folder]",
)
@click.option("--views", type=click.IntRange(1), help="Of each; absent: all that there are.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Of a service.  [default: 0]")
@click.option("--pose", type=FILE, help="JSON: names of --source's keypoints and where they go.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--resolution",
    type=click.IntRange(8, 4096),
    default=ShapesConfig.resolution,
    help="Of depth and normals, pixels.",
)
@click.option(
    "--max-inverted",
    type=click.FloatRange(0, 1),
    default=MeshLimits.inverted,
    help="Share of faces that may be inverted or collapsed.",
)
@click.option("--keep-flagged", is_flag=True, help="Write the files of degenerate meshes too.")
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
    """Writes each object's mesh as GLB and OBJ, its pictures, and with --source its 3D keypoints.

    report.json says how sound each mesh is; degenerate ones are named and not written.
    """
    _check_usage(
        images is not None,
        source is not None,
        {"--masks": masks, "--azimuth": azimuth, "--elevation": elevation},
        {"--objects": objects, "--views": views, "--seed": seed, "--pose": pose},
    )
    stored = source is not None and Path(source).is_dir()
    if stored and seed is not None:
        raise click.UsageError("--seed is for a service; a folder has the objects that it has")
    for name, value in {"--azimuth": azimuth, "--elevation": elevation}.items():
        if value is not None and math.isnan(value):  # which is within any range of click's
            raise click.UsageError(f"{name} is nan; it must be a number of degrees")
    refuse_existing_report(out)
    network, card = inverse_graphics_from_file(network_path)
    network.to(device)
    mesh = template(torch.device("cpu"))
    places: Positions = pose_from_file(pose, card.keypoints) if pose else {}
    subjects: list[Subject] = []
    if images is not None:
        if images.resolve() == out.resolve():
            raise TrainingError(f"--out {out} is the folder of --images; name another one")
        looks = ViewAngles(*(None if a is None else math.radians(a) for a in (azimuth, elevation)))
        subjects = subjects_from_folder(images, masks, looks, network, card, device)
    if source is not None:
        first = objects if stored else objects or OBJECTS
        config = SetsConfig(first, views, card.extent, tuple(card.background), seed or 0)
        subjects, origin = subjects_from_source(source, config, network, card, mesh, device)
        if origin.bundle_id != card.bundle_id:
            click.echo(f"note: {network_path} learnt from another bundle, {card.bundle_id}")
        unknown = [name for name in places if name not in origin.keypoints]
        if unknown:
            raise TrainingError(f"--pose {pose}: {source} has no keypoint {unknown[0]} to move")
        if not origin.keypoints:
            click.echo(f"note: the bundle of {source} has no keypoints; shapes only")
    made = {
        "by": "python -m training shapes",
        "network_sha256": sha256_of_file(network_path),
        "images": images and str(images),
        "source": source,
        "seed": None if source is None or stored else seed or 0,
        "resolution": resolution,
        "keep_flagged": keep_flagged,
    }
    written = ShapesConfig(resolution, MeshLimits(inverted=max_inverted), keep_flagged, places)
    _tell(write_shapes(out, subjects, card, mesh, written, made), out)


def _tell(entries: Sequence[SubjectReport], out: Path) -> None:
    for entry in entries:
        for flag in entry.flags:
            click.echo(f"flagged: {entry.name}: {flag}")
    told = [e.silhouette_iou for e in entries if e.silhouette_iou is not None]
    if told:
        click.echo(f"silhouettes: mean IoU {sum(told) / len(told):.3f} of {len(told)} objects")
    written = sum(bool(entry.files) for entry in entries)
    flagged = sum(bool(entry.flags) for entry in entries)
    click.echo(f"wrote {written} of {len(entries)} shapes to {out}; {flagged} flagged")


def _check_usage(
    images: bool, source: bool, of_images: dict[str, object], of_source: dict[str, object]
) -> None:
    """Raises click.UsageError."""
    if images == source:
        raise click.UsageError("give either --images or --source")
    for name, value in (of_source if images else of_images).items():
        if value is not None:
            raise click.UsageError(f"{name} is for {'--source' if images else '--images'}")
