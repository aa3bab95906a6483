"""`labelmint preview`: a look at a stream before anything is trained on it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource
from PIL import Image
from tqdm import tqdm

from labelmint.cli.connection import client_from_connection, connection_from_options, connects
from labelmint.cli.sampling import samples
from labelmint.client import Client
from labelmint.errors import LabelmintError, OutOfRange
from labelmint.model import Model
from labelmint.options import StreamOptions, query_from_options
from labelmint.preview import sheet_from_batch
from labelmint.report.page import html_from_survey
from labelmint.report.stream_statistics import MAX_EXAMINED, survey_from_stream

OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map")
EXAMINED_PER_SAMPLE = 200  # a filter that keeps less than one of so many ends a preview
PICTURE_SAMPLES, MAX_PICTURE_SAMPLES = 8, 256
REPORT_SAMPLES = 256
REPORT_SUFFIXES = (".html", ".htm")


@click.command()
@connects
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write, its suffix names the format; or .html for a report.",
)
@click.option(
    "--count",
    type=click.IntRange(1, MAX_EXAMINED),
    help=f"Samples in a picture, by default {PICTURE_SAMPLES}, at most {MAX_PICTURE_SAMPLES}; "
    f"samples to examine for a report, by default {REPORT_SAMPLES}.",
)
@samples
def preview(out: Path, model: str, count: int | None, **options: Any) -> None:
    """Draw a contact sheet, or write a report of what a stream is like.

    A picture shows images, masks, keypoints, depth and uncertainty. A report, one HTML file that
    needs nothing else, has that sheet, how often each class occurs, how the uncertainty is
    distributed, and samples that the filter keeps beside samples that it discards.
    """
    report = out.suffix.lower() in REPORT_SUFFIXES
    if not report and Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise click.UsageError(
            f"--out {out} does not end like a picture or a report; use for example .png or .html"
        )
    if not report and count is not None and count > MAX_PICTURE_SAMPLES:
        raise click.UsageError(
            f"--count {count} is over {MAX_PICTURE_SAMPLES}, what a picture holds; a report "
            "(--out preview.html) examines more"
        )
    if not out.parent.is_dir():
        raise LabelmintError(f"{out} cannot be written: there is no folder {out.parent}; make it")
    connection = connection_from_options(options)
    count = count or (REPORT_SAMPLES if report else PICTURE_SAMPLES)
    if options["start_index"] + count >= 2**64:
        raise click.UsageError(
            f"--start-index {options['start_index']} and {count} samples from there are not under "
            "2**64 - 1, where a stream ends; lower either"
        )
    try:
        query_from_options(cast(StreamOptions, options))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with client_from_connection(connection) as client:
        write = _write_report if report else _write_picture
        said = write(client, client.model(model), out, count, options)
    click.echo(f"wrote {out}: {said}")


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
    try:
        for batch in batches:  # there is at most one
            examined = batch.next_index - start
    except OutOfRange as error:
        examined = (error.next_index or start) - start
    if batch is None:
        raise LabelmintError(_nothing_kept(model, examined, options))
    sheet_from_batch(batch, model).save(out)
    few = "" if len(batch) == count else f" of {count}, all that was kept of {examined} examined"
    return f"{len(batch)} samples{few}; go on with --start-index {start + examined}"


def _nothing_kept(model: Model, examined: int, options: dict[str, Any]) -> str:
    """Why there is no sheet, and what to change."""
    start = f"from --start-index {options['start_index']} on"
    for name in ("keep_fraction", "max_uncertainty"):
        if options[name] is not None:
            number = f"{examined} " if examined else ""
            return (
                f"--{name.replace('_', '-')} {options[name]:g} keeps none of the {number}samples "
                f"{start}; raise it, or leave it out: --out preview.html then shows how uncertain "
                "samples are"
            )
    return f"{model.name} has no samples {start}; lower it"


def _write_report(
    client: Client, model: Model, out: Path, count: int, options: dict[str, Any]
) -> str:
    with tqdm(total=count, unit="sample", disable=None, leave=False) as bar:
        survey = survey_from_stream(client, model, count, cast(StreamOptions, options), bar.update)
    page = html_from_survey(survey, _named(options), _command(click.get_current_context()))
    out.write_text(page, "utf-8")
    return (
        f"{count} samples examined, {survey.delivered.samples} delivered; "
        f"go on with --start-index {survey.end_index}"
    )


def _named(options: dict[str, Any]) -> dict[str, object]:
    """The options of a stream that were asked for, as a report lists them."""
    unspoken = {"start_index": options["start_index"], "views_per_object": 1}
    return {
        name.replace("_", " ").capitalize(): value
        for name, value in options.items()
        if value is not None and value != unspoken.get(name)
    }


def _command(context: click.Context) -> str:
    """A command line that does the same again; a token is never in it."""
    words = ["labelmint", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        value = context.params[name]
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if given and parameter.opts and value is not False:
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return shlex.join(words)
