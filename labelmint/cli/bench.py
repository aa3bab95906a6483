"""`labelmint bench`: latency at a fixed request rate, or throughput at full speed.

Enter: options of the command line. Leaves: a text report, and on request the figures as JSON.
"""

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
    connection_options,
    tls_from_connection,
)
from labelmint.cli.sampling import sampling_options
from labelmint.codec import CODECS, OUTPUTS
from labelmint.errors import LabelmintError, printable_from_text
from labelmint.load.calls import MeteredConnection, Payload
from labelmint.load.requests import RequestFigures, RequestPlan, measure_requests
from labelmint.load.streams import StreamFigures, StreamPlan, measure_streams
from labelmint.load.text import text_from_requests, text_from_streams
from labelmint.load.timing import fixed_arrivals, poisson_arrivals
from labelmint.model import Model
from labelmint.options import StreamOptions, query_from_options
from labelmint.wire.replicas import targets_from_text

_RATE_OPTIONS, _STREAMS_OPTIONS = ("arrivals", "in_flight", "timeout"), ("stall",)
_PLAN_OPTIONS = ("duration", "warmup", "batch_size", *_RATE_OPTIONS, *_STREAMS_OPTIONS)
MAX_REQUESTS = 10_000_000  # the times of all requests are held in memory
_SECONDS = click.FloatRange(0, 604_800, min_open=True)


def _not_nan(context: click.Context, parameter: click.Parameter, value: float | None) -> Any:
    if value != value:  # a click range lets nan pass
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


@click.command()
@connection_options
@click.option(
    "--rate",
    type=click.FloatRange(0, 100_000, min_open=True),
    callback=_not_nan,
    help="Measure latency at this number of requests per second. Each request is sent at its "
    "time, even if earlier ones are not answered yet.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 1024),
    help="Measure throughput of this number of streams, each read at full speed from a shard of "
    "its own.  "
    "[default: 1, without --rate]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Number of samples per request (--rate) or per batch (--streams).  "
    "[default: 1 per request, 16 per batch]",
)
@click.option(
    "--duration",
    type=_SECONDS,
    callback=_not_nan,
    default=10.0,
    help="Length of the measurement in seconds.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 604_800),
    callback=_not_nan,
    default=2.0,
    help="Length of the warm-up before the measurement in seconds.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "fixed"]),
    default="poisson",
    help="Times of the requests of --rate: poisson (random, drawn with --seed) or fixed (evenly "
    "spaced).",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1024),
    default=64,
    help="Maximum number of unanswered requests of --rate; further requests are dropped.",
)
@click.option(
    "--timeout",
    type=_SECONDS,
    callback=_not_nan,
    default=60.0,
    help="Time limit of a request of --rate in seconds.",
)
@click.option(
    "--stall",
    type=_SECONDS,
    callback=_not_nan,
    default=1.0,
    help="Seconds between two batches of --streams above which they count as a stall.",
)
@click.option(
    "--output",
    "outputs",
    type=click.Choice(list(OUTPUTS)),
    multiple=True,
    help="Output to request; may be repeated.  [default: the image and every head]",
)
@click.option(
    "--codec",
    "codecs",
    type=click.Choice(list(CODECS)),
    multiple=True,
    help="Codec to accept; may be repeated.  [default: raw and zstd]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Path of a JSON file to write the unrounded figures to.",
)
@sampling_options
def bench(json_file: Path | None, rate: float | None, streams: int | None, **options: Any) -> None:
    """Measure the latency or the throughput of a server.

    --rate measures latency, --streams measures throughput. With --rate, latency counts from the
    time at which a request was due, so that it includes the wait for a server that falls behind.
    Ctrl-C ends the measurement early and prints the figures so far.
    """
    _refuse_options_of_the_other_mode(rate, streams)
    if json_file and not json_file.parent.is_dir():
        raise LabelmintError(f"{json_file} cannot be written: its folder does not exist; make it")
    connection = connection_from_options(options)
    if len(targets_from_text(connection["target"])) > 1:
        raise click.UsageError(
            f"--target {connection['target']} has several addresses; bench measures one, or one "
            "name for all of them, as dns:///NAME:PORT"
        )
    plan = {name: options.pop(name) for name in _PLAN_OPTIONS}
    _check_size(rate, plan, options["start_index"])
    with client_from_connection(connection) as client:
        model = client.model(options["model"])
    sampling = cast(StreamOptions, {**options, "model": model.name})
    with MeteredConnection(connection["target"], tls_from_connection(connection)) as server:
        try:
            # One request before the measurement, so that options the server refuses end here.
            count = plan["batch_size"] or 1 if rate is not None else 1
            server.generate({**sampling, "count": count}, plan["timeout"])
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with _progress(plan) as bar:
            figures, report = (
                _requests(server, sampling, rate, plan, bar)
                if rate is not None
                else _streams(server, sampling, streams or 1, plan, bar)
            )
    click.echo(f"{printable_from_text(model.name)} at {connection['target']}, {report}")
    if json_file:
        settings = {"rate": rate, "streams": streams, **plan, **options}
        json_file.write_text(_json_from_figures(model, settings, figures), "utf-8")
    if figures.interrupted:
        raise KeyboardInterrupt
    if not (figures.answered if isinstance(figures, RequestFigures) else figures.batches):
        raise LabelmintError(f"no answer within {plan['duration']:g} s; give a longer --duration")


def _json_from_figures(
    model: Model, settings: dict[str, Any], figures: RequestFigures | StreamFigures
) -> str:
    document = {
        "labelmint": labelmint.__version__,
        "model": model.name,
        "bundle_id": model.bundle_id,
        "engine": model.engine,
        "asked": settings,
        "figures": dataclasses.asdict(figures),
    }
    return json.dumps(document, indent=2) + "\n"


def _check_size(rate: float | None, plan: dict[str, Any], start_index: int) -> None:
    requests = (rate or 0) * (plan["warmup"] + plan["duration"])
    if requests > MAX_REQUESTS:
        raise click.UsageError(
            f"--rate {rate:g} makes {requests:.0f} requests, over the limit {MAX_REQUESTS}; lower "
            "--rate, --duration or --warmup"
        )
    if start_index + (MAX_REQUESTS + 1) * (plan["batch_size"] or 16) >= 2**64:
        raise click.UsageError(
            f"--start-index {start_index} leaves too few indices under 2**64; lower it"
        )


def _refuse_options_of_the_other_mode(rate: float | None, streams: int | None) -> None:
    if rate is not None and streams is not None:
        raise click.UsageError(f"--rate {rate:g} and --streams {streams} exclude each other")
    context = click.get_current_context()
    mode, other = ("--streams", _RATE_OPTIONS) if rate is None else ("--rate", _STREAMS_OPTIONS)
    needed = "--rate" if rate is None else "--streams"
    for name in other:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} has no effect with {mode}; it needs {needed}")


def _progress(plan: dict[str, Any]) -> tqdm[Any]:
    layout = "{l_bar}{bar}| {n:.0f} of {total:.0f} s"
    total = plan["warmup"] + plan["duration"]
    return tqdm(total=total, disable=None, leave=False, bar_format=layout)


def _requests(
    server: MeteredConnection,
    sampling: StreamOptions,
    rate: float,
    plan: dict[str, Any],
    bar: tqdm[Any],
) -> tuple[RequestFigures, str]:
    count, first = plan["batch_size"] or 1, sampling["start_index"]
    seconds = plan["warmup"] + plan["duration"]
    poisson = plan["arrivals"] == "poisson"
    due = (
        poisson_arrivals(rate, seconds, sampling["seed"])
        if poisson
        else fixed_arrivals(rate, seconds)
    )

    def send(number: int) -> Payload:
        options: StreamOptions = {**sampling, "start_index": first + number * count, "count": count}
        return server.generate(options, plan["timeout"])

    figures = measure_requests(
        send, RequestPlan(due, plan["warmup"], plan["in_flight"]), server.end, bar.update
    )
    head = f"{rate:g} requests/s of {count} samples ({plan['arrivals']}) for {plan['duration']:g} s"
    return figures, f"{head}\n{text_from_requests(figures)}"


def _streams(
    server: MeteredConnection,
    sampling: StreamOptions,
    streams: int,
    plan: dict[str, Any],
    bar: tqdm[Any],
) -> tuple[StreamFigures, str]:
    size = plan["batch_size"] or 16
    queries = [
        query_from_options({**sampling, "shard_index": shard, "num_shards": streams})
        for shard in range(streams)
    ]
    figures = measure_streams(
        server,
        StreamPlan(queries, size, plan["warmup"], plan["duration"], plan["stall"]),
        bar.update,
    )
    head = f"{streams} streams in batches of {size} for {plan['duration']:g} s"
    return figures, f"{head}\n{text_from_streams(figures, plan['stall'])}"
