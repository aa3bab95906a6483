"""`labelmint download`: writes a finite data set to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmint.cli.connection import (
    client_from_connection,
    connection_from_options,
    connection_options,
)
from labelmint.cli.sampling import INDEX, sampling_options
from labelmint.datasets.download import complete_folder
from labelmint.datasets.filter_report import lines_from_report
from labelmint.datasets.request import (
    DEFAULT_FRACTION,
    DEFAULT_JPEG_QUALITY,
    DEFAULT_MIN_CONFIDENCE,
    DEFAULT_SAMPLES_PER_SHARD,
    FORMATS,
    checked_request,
)
from labelmint.datasets.selection import RULES
from labelmint.filter_options import where_from_options


@click.command()
@connection_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write to: a new or empty one, or one that an interrupted run of the same "
    "command left.",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="webdataset",
    help="File format: WebDataset tars, COCO, folders of PNG files with a table, Parquet files for "
    "Hugging Face datasets, YOLO polygons or keypoints for Ultralytics, or tasks to correct in "
    "CVAT or Label Studio.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    help="Number of samples to write; required without --end-index, refused with --filter.",
)
@click.option(
    "--end-index", type=INDEX, help="End of the raw indices, exclusive; required with --filter."
)
@sampling_options
@click.option(
    "--filter-sets",
    is_flag=True,
    callback=lambda context, parameter, value: value or None,
    help="Keep or drop all views of an object together; for --keep-fraction, "
    "--max-uncertainty or --where with --views-per-object.",
)
@click.option(
    "--filter",
    type=click.Choice(RULES),
    help="Filter that ranks all samples from --start-index to --end-index by uncertainty, in "
    "place of the threshold of --keep-fraction. top-fraction keeps the least uncertain --fraction; "
    "research keeps as many but drops the 30 least uncertain, as the code of DatasetGAN does.",
)
@click.option(
    "--fraction",
    type=float,
    help=f"Fraction of samples that --filter keeps, in (0, 1].  [default: {DEFAULT_FRACTION}]",
)
@click.option(
    "--filter-report",
    type=click.IntRange(1),
    help="Number of samples at the start of the range that are drawn once more, with and without "
    "the filter: the data card then says how much of each class the filter removes.",
)
@click.option(
    "--shard-index",
    type=click.IntRange(0),
    default=0,
    help="Number of the part to write, from 0 to --num-shards - 1.",
)
@click.option(
    "--num-shards",
    type=click.IntRange(1, 2**16),
    default=1,
    help="Number of disjoint parts to split the data set into; write each to its own folder.",
)
@click.option(
    "--samples-per-shard",
    type=click.IntRange(1),
    help="Number of samples in a file of --format webdataset or hf.  "
    f"[default: {DEFAULT_SAMPLES_PER_SHARD}]",
)
@click.option(
    "--image-codec",
    type=click.Choice(("png", "jpeg")),
    default="png",
    help="File format of the images.",
)
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 100),
    help=f"Quality of --image-codec jpeg.  [default: {DEFAULT_JPEG_QUALITY}]",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0),
    help="Confidence from which --format coco, yolo-pose, cvat, label-studio and fiftyone have a "
    "keypoint as visible.  "
    f"[default: {DEFAULT_MIN_CONFIDENCE}]",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 256),
    default=1,
    help="Number of parallel calls to the server.",
)
def download(out: Path, streams: int, **options: Any) -> None:
    """Write samples to a folder as a data set.

    The folder gets the files of a format, and a data card. After an interruption, run the
    same command again: it resumes, and the files are the same as those of an uninterrupted run.
    """
    connection = connection_from_options(options)
    try:
        options["where"] = where_from_options(
            options["where"], options.pop("max_class_uncertainty")
        )
        request = checked_request(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with client_from_connection(connection, streams) as client:
        try:
            card = complete_folder(client, request, out)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"{out} is incomplete; run the same command again, which resumes"
            ) from interrupt
    for line in lines_from_report(card["filter_report"]) if "filter_report" in card else ():
        click.echo(f"warning: {line}", err=True)
    kept, examined = card["samples"]["kept"], card["samples"]["examined"]
    click.echo(f"{out} is complete: {kept} samples of {examined} examined, {request.format}")
