"""`labelmint download`: a finite data set on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmint.cli.connection import client_from_connection, connection_from_options, connects
from labelmint.cli.sampling import INDEX, samples
from labelmint.datasets.download import download as completed
from labelmint.datasets.request import (
    DEFAULT_FRACTION,
    DEFAULT_JPEG_QUALITY,
    DEFAULT_MIN_CONFIDENCE,
    DEFAULT_SAMPLES_PER_SHARD,
    FORMATS,
    checked_request,
)
from labelmint.datasets.selection import RULES


@click.command()
@connects
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to make; a new or empty one, or this command's own from before.",
)
@click.option("--format", type=click.Choice(FORMATS), default="webdataset", show_default=True)
@click.option("--count", type=click.IntRange(1), help="Samples to write.")
@click.option("--end-index", type=INDEX, help="Look at raw indices under this one only.")
@samples
@click.option(
    "--filter-sets",
    is_flag=True,
    callback=lambda context, parameter, value: value or None,
    help="With --views-per-object: --keep-fraction and --max-uncertainty keep an object with all "
    "its views, or drop it.",
)
@click.option(
    "--filter",
    type=click.Choice(RULES),
    help="Rank all of --start-index to --end-index, and write the least uncertain of them; "
    "research also drops the 30 least uncertain, as the research code does. --keep-fraction "
    "instead is a threshold from the bundle's calibration, and needs no end.",
)
@click.option("--fraction", type=float, help=f"What --filter keeps.  [default: {DEFAULT_FRACTION}]")
@click.option("--shard-index", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--num-shards",
    type=click.IntRange(1, 2**16),
    default=1,
    show_default=True,
    help="Write one of so many disjoint parts, each to a folder of its own.",
)
@click.option(
    "--samples-per-shard",
    type=click.IntRange(1),
    help=f"In a tar of --format webdataset.  [default: {DEFAULT_SAMPLES_PER_SHARD}]",
)
@click.option("--image-codec", type=click.Choice(("png", "jpeg")), default="png", show_default=True)
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 100),
    help=f"Of --image-codec jpeg.  [default: {DEFAULT_JPEG_QUALITY}]",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0),
    help=f"Of keypoints in --format coco.  [default: {DEFAULT_MIN_CONFIDENCE}]",
)
@click.option(
    "--streams", type=click.IntRange(1, 256), default=1, show_default=True, help="Calls at a time."
)
def download(out: Path, streams: int, **options: Any) -> None:
    """Write samples as WebDataset shards, COCO or plain folders, with a data card.

    The same command goes on where it was interrupted, and then the files are those of an
    uninterrupted run.
    """
    connection = connection_from_options(options)
    try:
        request = checked_request(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with client_from_connection(connection, streams) as client:
        card = completed(client, request, out)
    kept, examined = card["samples"]["kept"], card["samples"]["examined"]
    click.echo(f"{out} is complete: {kept} samples of {examined} examined, {request.format}")
