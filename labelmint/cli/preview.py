"""`labelmint preview`: a contact sheet of samples, or an HTML report on a range of a stream.

Enter: options of the command line. Leaves: one file, a picture or an HTML page.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource
from tqdm import tqdm

from labelmint.cli.connection import (
    client_from_connection,
    connection_from_options,
    connection_options,
)
from labelmint.cli.sampling import sampling_options
from labelmint.client import Client
from labelmint.errors import LabelmintError, OutOfRange
from labelmint.filter_options import where_from_options
from labelmint.model import Model
from labelmint.options import StreamOptions, query_from_options
from labelmint.preview import sheet_from_batch
from labelmint.report.page import html_from_statistics
from labelmint.report.stream_statistics import MAX_EXAMINED, statistics_from_stream

OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map")
EXAMINED_PER_SAMPLE = 200  # a preview ends at 200 examined samples for each sample of --count
PICTURE_SAMPLES, MAX_PICTURE_SAMPLES = 8, 256  # default, limit
REPORT_SAMPLES = 256  # default
REPORT_SUFFIXES = (".html", ".htm")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@click.command()
@connection_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help=f"File to write: {' or '.join(REPORT_SUFFIXES)} for a report; "
    f"{', '.join(PICTURE_SUFFIXES)} for a picture.",
)
@click.option(
    "--count",
    type=click.IntRange(1, MAX_EXAMINED),
    help=f"Number of samples to draw in a picture, at most {MAX_PICTURE_SAMPLES}, or to examine "
    f"for a report.  [default: {PICTURE_SAMPLES} for a picture, {REPORT_SAMPLES} for a report]",
)
@sampling_options
def preview(out: Path, model: str, count: int | None, **options: Any) -> None:
    """Draw a contact sheet of samples, or write a report on them.

    --out sheet.png draws a sheet, --out report.html writes a report. The sheet shows images, masks,
    keypoints, depth and uncertainty. The report is one self-contained HTML file: the sheet, the
    frequency of each class, the distribution of the uncertainty, and examples of samples that the
    filter keeps and discards.
    """
    report = out.suffix.lower() in REPORT_SUFFIXES
    if not report and out.suffix.lower() not in PICTURE_SUFFIXES:
        raise click.UsageError(
            f"--out {out} has the suffix of neither a report ({', '.join(REPORT_SUFFIXES)}) nor a "
            f"picture ({', '.join(PICTURE_SUFFIXES)}); a browser prints a report as PDF"
        )
    if not report and count is not None and count > MAX_PICTURE_SAMPLES:
        raise click.UsageError(
            f"--count {count} is over {MAX_PICTURE_SAMPLES}, the limit of a picture; a report "
            f"(--out preview.html) takes up to {MAX_EXAMINED}"
        )
    if not out.parent.is_dir():
        raise LabelmintError(
            f"{out} cannot be written: the folder {out.parent} does not exist; make it"
        )
    connection = connection_from_options(options)
    count = count or (REPORT_SAMPLES if report else PICTURE_SAMPLES)
    if options["start_index"] + count >= 2**64:
        raise click.UsageError(
            f"--start-index {options['start_index']} and --count {count} go beyond index "
            "2**64 - 1, the end of a stream; lower one of them"
        )
    try:
        query_from_options(cast(StreamOptions, options))
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    with client_from_connection(connection) as client:
        write = _write_report if report else _write_picture
        summary = write(client, client.model(model), out, count, options)
    click.echo(f"wrote {out}: {summary}")


def _write_picture(
    client: Client, model: Model, out: Path, count: int, options: dict[str, Any]
) -> str:
    start = options["start_index"]
    batches = client.stream(
        count,
        model=model.name,
        count=count,
        outputs=[name for name in OUTPUTS if name in model.outputs],
        max_examined=count * EXAMINED_PER_SAMPLE,
        **options,
    )
    batch, examined = None, 0
    text = f"waiting for {count} samples; at most {count * EXAMINED_PER_SAMPLE} are examined"
    with tqdm(desc=text, bar_format="{desc}", disable=None, leave=False):
        try:
            for batch in batches:  # there is at most one
                examined = batch.next_index - start
        except OutOfRange as error:
            examined = (error.next_index or start) - start
    if batch is None:
        raise LabelmintError(_nothing_kept(model, examined, options))
    sheet = sheet_from_batch(batch, model)
    try:
        sheet.save(out)
    except ValueError as error:  # WebP, for one, has at most 16,383 pixels
        raise LabelmintError(
            f"{out} cannot hold a picture of {sheet.width} x {sheet.height} pixels ({error}); give "
            "a lower --count, or write PNG"
        ) from error
    few = "" if len(batch) == count else f" of {count}: no more kept in {examined} examined"
    return f"{len(batch)} samples{few}; continue with --start-index {start + examined}"


def _nothing_kept(model: Model, examined: int, options: dict[str, Any]) -> str:
    """Message of the error of a sheet without samples."""
    start = f"from --start-index {options['start_index']} on"
    for name in ("keep_fraction", "max_uncertainty"):
        if options[name] is not None:
            number = f"{examined} " if examined else ""
            return (
                f"--{name.replace('_', '-')} {options[name]:g} keeps none of the {number}samples "
                f"{start}; raise it, or leave it out: --out preview.html then shows the "
                "distribution of the uncertainty"
            )
    if options["balance"] is not None:
        return (
            f"--balance keeps none of the {examined} samples {start}; ask for smaller shares, or "
            "examine more"
        )
    if options["proposal"] is not None:
        return (
            f"none of the {examined} samples {start} is chosen by --proposal "
            f"{options['proposal']} and passes the filter; examine more, or leave it out"
        )
    if options["where"] is not None or options["max_class_uncertainty"] is not None:
        words = where_from_options(options["where"], options["max_class_uncertainty"])
        return (
            f"none of the {examined} samples {start} has {words}; loosen it, or see with --out "
            "preview.html what share each class has"
        )
    return f"{model.name} has no samples {start}; lower it"


def _write_report(
    client: Client, model: Model, out: Path, count: int, options: dict[str, Any]
) -> str:
    with tqdm(total=count, unit="sample", disable=None, leave=False) as bar:
        statistics = statistics_from_stream(
            client, model, count, cast(StreamOptions, options), bar.update
        )
    command = _command(click.get_current_context())
    out.write_text(html_from_statistics(statistics, _named(options), command), "utf-8")
    return (
        f"{count} samples examined, {statistics.delivered.samples} delivered; "
        f"continue with --start-index {statistics.end_index}"
    )


def _named(options: dict[str, Any]) -> dict[str, object]:
    """The options that differ from their defaults, as the report lists them."""
    unlisted = {"start_index": options["start_index"], "views_per_object": 1}
    return {
        name.replace("_", " ").capitalize(): ", ".join(_given_values(value))
        for name, value in options.items()
        if value is not None and value != unlisted.get(name)
    }


def _given_values(value: object) -> list[str]:
    """An option's value as it was given; several of one that may be repeated."""
    if isinstance(value, dict):
        return [f"{name}={number:g}" for name, number in value.items()]
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _command(context: click.Context) -> str:
    """The command line that makes this report again; it never has a token."""
    words = ["labelmint", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        value = context.params[name]
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if not given or not parameter.opts or value is False:
            continue
        if value is True:
            words.append(parameter.opts[0])
            continue
        for each in _given_values(value):
            words += [parameter.opts[0], each]
    return shlex.join(words)
