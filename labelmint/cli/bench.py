"""`labelmint bench`: how fast a server answers, at a rate or at full speed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource
from tqdm import tqdm

import labelmint
from labelmint.cli.connection import (
    client_from_connection,
    connection_from_options,
    connects,
    tls_from_connection,
)
from labelmint.cli.sampling import samples
from labelmint.codec import CODECS, OUTPUTS
from labelmint.errors import LabelmintError
from labelmint.load.calls import Calls, Payload
from labelmint.load.requests import RequestFigures, RequestPlan, measure_requests
from labelmint.load.streams import StreamFigures, StreamPlan, measure_streams
from labelmint.load.text import text_from_requests, text_from_streams
from labelmint.load.timing import fixed_arrivals, poisson_arrivals
from labelmint.model import Model
from labelmint.options import StreamOptions, query_from_options
from labelmint.wire.replicas import targets_from_text

OF_RATE, OF_STREAMS = ("arrivals", "in_flight", "timeout"), ("stall",)
_PLAN = ("duration", "warmup", "batch_size", *OF_RATE, *OF_STREAMS)
MAX_REQUESTS = 10_000_000  # their times are kept
_SECONDS = click.FloatRange(0, 604_800, min_open=True)


def _number(context: click.Context, parameter: click.Parameter, value: float | None) -> Any:
    if value != value:  # which no range refuses
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


@click.command(context_settings={"show_default": True})
@connects
@click.option(
    "--rate",
    type=click.FloatRange(0, 100_000, min_open=True),
    callback=_number,
    help="Requests a second, sent when they are due, whether or not others were answered.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 1024),
    help="Instead of --rate: streams at full speed, each a shard of its own.  [default: 1]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Samples in a request (1 by default), or in a batch of a stream (16).",
)
@click.option(
    "--duration", type=_SECONDS, callback=_number, default=10.0, help="Seconds to measure."
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 604_800),
    callback=_number,
    default=2.0,
    help="Seconds before that.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "fixed"]),
    default="poisson",
    help="How requests are spaced; --seed draws the Poisson ones.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1024),
    default=64,
    help="A request that is due while so many wait is dropped.",
)
@click.option(
    "--timeout", type=_SECONDS, callback=_number, default=60.0, help="Seconds for one request."
)
@click.option(
    "--stall",
    type=_SECONDS,
    callback=_number,
    default=1.0,
    help="Seconds: a longer gap is a stall.",
)
@click.option(
    "--output",
    "outputs",
    type=click.Choice(list(OUTPUTS)),
    multiple=True,
    help="May be repeated.  [default: the image and every head]",
)
@click.option(
    "--codec",
    "codecs",
    type=click.Choice(list(CODECS)),
    multiple=True,
    help="To accept; may be repeated.  [default: raw and zstd]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the figures to, with all digits.",
)
@samples
def bench(json_file: Path | None, rate: float | None, streams: int | None, **options: Any) -> None:
    """Measure latency at a rate (--rate), or throughput at full speed (--streams).

    With --rate, latency counts from when a request was due, so that a server that falls behind
    shows it. Ctrl-C ends the test early and shows what was measured.
    """
    _refuse_options_of_the_other_mode(rate, streams)
    if json_file and not json_file.parent.is_dir():
        raise LabelmintError(f"{json_file} cannot be written: there is no folder for it; make it")
    connection = connection_from_options(options)
    if len(targets_from_text(connection["target"])) > 1:
        raise click.UsageError(
            f"--target {connection['target']} names several; bench measures one, or a name that "
            "stands for all of them"
        )
    plan = {name: options.pop(name) for name in _PLAN}
    _refuse_too_many(rate, plan, options["start_index"])
    with client_from_connection(connection) as client:
        model = client.model(options["model"])
    wanted = cast(StreamOptions, {**options, "model": model.name})
    with Calls(connection["target"], tls_from_connection(connection)) as calls:
        try:
            # Whatever the server refuses, it refuses here, once.
            count = plan["batch_size"] or 1 if rate is not None else 1
            calls.generate({**wanted, "count": count}, plan["timeout"])
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with _progress(plan) as bar:
            figures, said = (
                _requests(calls, wanted, rate, plan, bar)
                if rate is not None
                else _streams(calls, wanted, streams or 1, plan, bar)
            )
    click.echo(f"{model.name} at {connection['target']}, {said}")
    if json_file:
        asked = {"rate": rate, "streams": streams, **plan, **options}
        json_file.write_text(_document(model, asked, figures), "utf-8")
    if figures.interrupted:
        raise KeyboardInterrupt
    if not (figures.answered if isinstance(figures, RequestFigures) else figures.batches):
        raise LabelmintError("nothing was answered within the time; give it a longer --duration")


def _document(model: Model, asked: dict[str, Any], figures: RequestFigures | StreamFigures) -> str:
    document = {
        "labelmint": labelmint.__version__,
        "model": model.name,
        "bundle_id": model.bundle_id,
        "engine": model.engine,
        "asked": asked,
        "figures": dataclasses.asdict(figures),
    }
    return json.dumps(document, indent=2) + "\n"


def _refuse_too_many(rate: float | None, plan: dict[str, Any], start_index: int) -> None:
    requests = (rate or 0) * (plan["warmup"] + plan["duration"])
    if requests > MAX_REQUESTS:
        raise click.UsageError(
            f"--rate {rate:g} for so long is over {MAX_REQUESTS} requests; ask for less"
        )
    if start_index + (MAX_REQUESTS + 1) * (plan["batch_size"] or 16) >= 2**64:
        raise click.UsageError(f"--start-index {start_index} leaves too few; give a smaller one")


def _refuse_options_of_the_other_mode(rate: float | None, streams: int | None) -> None:
    if rate is not None and streams is not None:
        raise click.UsageError(f"--rate {rate:g} and --streams {streams} exclude each other")
    context = click.get_current_context()
    mode, other = ("--streams", OF_RATE) if rate is None else ("--rate", OF_STREAMS)
    needed = "--rate" if rate is None else "--streams"
    for name in other:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} has no meaning with {mode}; it is for {needed}")


def _progress(plan: dict[str, Any]) -> tqdm[Any]:
    layout = "{l_bar}{bar}| {n:.0f} of {total:.0f} s"
    total = plan["warmup"] + plan["duration"]
    return tqdm(total=total, disable=None, leave=False, bar_format=layout)


def _requests(
    calls: Calls, wanted: StreamOptions, rate: float, plan: dict[str, Any], bar: tqdm[Any]
) -> tuple[RequestFigures, str]:
    count, first = plan["batch_size"] or 1, wanted["start_index"]
    seconds = plan["warmup"] + plan["duration"]
    poisson = plan["arrivals"] == "poisson"
    due = (
        poisson_arrivals(rate, seconds, wanted["seed"])
        if poisson
        else fixed_arrivals(rate, seconds)
    )

    def send(number: int) -> Payload:
        options: StreamOptions = {**wanted, "start_index": first + number * count, "count": count}
        return calls.generate(options, plan["timeout"])

    figures = measure_requests(
        send, RequestPlan(due, plan["warmup"], plan["in_flight"]), calls.end, bar.update
    )
    asked = f"{rate:g} requests/s of {count} samples ({plan['arrivals']})"
    return figures, f"{asked} for {plan['duration']:g} s\n{text_from_requests(figures)}"


def _streams(
    calls: Calls, wanted: StreamOptions, streams: int, plan: dict[str, Any], bar: tqdm[Any]
) -> tuple[StreamFigures, str]:
    size = plan["batch_size"] or 16
    queries = [
        query_from_options({**wanted, "shard_index": shard, "num_shards": streams})
        for shard in range(streams)
    ]
    figures = measure_streams(
        calls,
        StreamPlan(queries, size, plan["warmup"], plan["duration"], plan["stall"]),
        bar.update,
    )
    asked = f"{streams} streams in batches of {size} for {plan['duration']:g} s"
    return figures, f"{asked}\n{text_from_streams(figures, plan['stall'])}"
