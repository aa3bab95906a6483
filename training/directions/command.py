"""python -m training directions: a bundle -> a proposal for a rare predicate, in the bundle."""

from pathlib import Path
from typing import Any

import click

from bundle.errors import BundleError
from engines.errors import EngineError
from training.errors import TrainingError
from training.options import AT_LEAST_0, AT_LEAST_1, FOLDER, MAX_STREAM_SEED, seed_option

MIN_SAMPLES = 512
DEFAULT_SAMPLES = 8192


@click.command()
@click.option("--bundle", required=True, type=FOLDER, help="Bundle to learn from, and to add to.")
@click.option(
    "--for",
    "where",
    required=True,
    help="Predicate that samples should meet, as `where` of a stream, e.g. "
    "\"share('glasses') >= 0.05\".",
)
@click.option("--name", required=True, help="Name of the proposal in requests.")
@click.option(
    "--samples",
    type=click.IntRange(MIN_SAMPLES),
    default=DEFAULT_SAMPLES,
    help="Number of samples to generate: a quarter as they come, a half where the fit so far "
    "expects more that meet the predicate, and a quarter to measure the result.",
)
@seed_option("Seed of the samples.", 0, MAX_STREAM_SEED)
@click.option(
    "--psi",
    type=click.FloatRange(0, 2),
    help="Truncation psi; requests need the same.  [default: the bundle's]",
)
@click.option(
    "--cutoff",
    type=AT_LEAST_0,
    help="Number of first rows of w+ that --psi applies to.  [default: the bundle's]",
)
@click.option(
    "--class",
    "class_index",
    type=AT_LEAST_0,
    help="Class of all samples, for class-conditional generators.  [default: drawn for each]",
)
@click.option("--replace", "replace_known", is_flag=True, help="Replace a proposal of this name.")
@click.option(
    "--batch",
    type=AT_LEAST_1,
    help="Batch size in samples.  [default: 4 for images up to 128 px, else 1]",
)
def directions(**settings: Any) -> None:
    """Learn which samples are worth generating for a predicate that few meet.

    A small network learns, from samples of the bundle and their own labels, to tell from w how
    likely a sample meets the predicate. It is added to the bundle; streams with proposal=NAME then
    generate the likely samples alone, with weights that correct for the choice. If the command is
    interrupted, the same one goes on with the samples it has.
    """
    # Here, because other commands need no ONNX Runtime and should not wait for it.
    from training.directions.run import Settings, add_fitted_proposal

    bundle: Path = settings["bundle"]
    try:
        facts = add_fitted_proposal(Settings(**settings))
    except (BundleError, EngineError) as error:
        raise TrainingError(str(error)) from error
    click.echo(f"added proposal {settings['name']} to {bundle}")
    for label, estimate, unit in (
        ("meet the predicate, of all samples", facts.share, 100),
        ("of those that the proposal generates", facts.generated_share, 100),
        ("fewer generated samples for each that meets it", facts.gain, 1),
        ("effective sample size of those, weighted", facts.effective, 100),
        ("indices examined for each generated sample", facts.examined, 1),
    ):
        sign = "%" if unit == 100 else "x" if estimate is facts.gain else ""
        low, value, high = (unit * each for each in (estimate.low, estimate.value, estimate.high))
        click.echo(f"  {value:8.3g}{sign:1} ({low:.3g} to {high:.3g})  {label}")
