"""python -m training directions: a bundle -> a proposal for a rare predicate, or a direction of
edits, in the bundle."""

from pathlib import Path
from typing import Any

import click

from bundle.errors import BundleError
from bundle.manifest import MAX_STRENGTH, DirectionFacts, Estimate, ProposalFacts
from engines.errors import EngineError
from training.errors import TrainingError
from training.options import AT_LEAST_0, AT_LEAST_1, FOLDER, MAX_STREAM_SEED, seed_option

MIN_SAMPLES = 512
DEFAULT_SAMPLES, DEFAULT_EDIT_SAMPLES, DEFAULT_STRENGTH = 8192, 4096, 3.0


@click.command()
@click.option("--bundle", required=True, type=FOLDER, help="Bundle to learn from, and to add to.")
@click.option(
    "--for",
    "where",
    help="Learn a proposal: the predicate that samples should meet, as `where` of a stream, e.g. "
    "\"share('glasses') >= 0.05\".",
)
@click.option(
    "--edit",
    "changes",
    metavar="CLASS",
    help="Learn a direction instead: the class that edits along it should change, e.g. glasses.",
)
@click.option(
    "--name",
    help="Name of the proposal or direction in requests.  [default: that of the class of --edit]",
)
@click.option(
    "--samples",
    type=click.IntRange(MIN_SAMPLES),
    help="Number of samples to generate. With --for: a quarter as they come, a half where the fit "
    "so far expects more that meet the predicate, and a quarter to measure the result. With "
    "--edit: all for the fit; choosing and measuring need as many again.  "
    f"[default: {DEFAULT_SAMPLES}, {DEFAULT_EDIT_SAMPLES} with --edit]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, MAX_STRENGTH, min_open=True),
    help="Greatest strength of edits that is measured, to either side; requests may have no "
    f"greater one. For --edit.  [default: {DEFAULT_STRENGTH:g}]",
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
    """Learn which samples a rare predicate needs, or which way w goes for more of a class.

    With --for, a small network learns from samples of the bundle and their own labels to tell from
    w how likely a sample meets the predicate. Streams with proposal=NAME then generate the likely
    samples alone, with weights that correct for the choice.

    With --edit, a direction in w+ is learned that changes a class and other parts of the mask
    little, and what it changes is measured. Streams with edits={NAME: 1.5} then have the same
    samples with more of the class.

    Either is added to the bundle. If the command is interrupted, the same one goes on with the
    samples it has.
    """
    settings = _checked(settings)
    bundle: Path = settings["bundle"]
    # Here, because other commands need no ONNX Runtime and should not wait for it.
    from training.directions.run import Settings, add_fitted_proposal
    from training.directions.run_edit import EditSettings, add_learned_direction

    try:
        if "where" in settings:
            proposal = add_fitted_proposal(Settings(**settings))
            click.echo(f"added proposal {settings['name']} to {bundle}")
            _echo_proposal(proposal)
            return
        direction = add_learned_direction(EditSettings(**settings))
    except (BundleError, EngineError) as error:
        raise TrainingError(str(error)) from error
    click.echo(
        f"added direction {settings['name']} to {bundle}: rows {direction.first_row} to "
        f"{direction.end_row - 1} of w+, measured on {direction.measured} samples"
    )
    _echo_direction(direction)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of either kind, with their defaults."""
    settings = dict(given)
    if (settings["where"] is None) == (settings["changes"] is None):
        raise click.UsageError(
            "give either --for, to learn a proposal, or --edit, to learn a direction"
        )
    if settings["where"] is not None:
        if settings.pop("strength") is not None:
            raise click.UsageError("--strength is for --edit; leave it out")
        if settings["name"] is None:
            raise click.UsageError("--name is missing; give the proposal one")
        del settings["changes"]
        settings["samples"] = settings["samples"] or DEFAULT_SAMPLES
        return settings
    del settings["where"]
    settings["name"] = settings["changes"] if settings["name"] is None else settings["name"]
    settings["samples"] = settings["samples"] or DEFAULT_EDIT_SAMPLES
    settings["strength"] = settings["strength"] or DEFAULT_STRENGTH
    return settings


def _echo_proposal(facts: ProposalFacts) -> None:
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


def _echo_direction(facts: DirectionFacts) -> None:
    click.echo(
        f"  {'strength':>8}  {facts.changes[:30] + ', of the pixels':<28}  {'of the images':<22}  "
        f"{'other pixels unchanged':<26}  mIoU of other classes"
    )
    for row in facts.strengths:
        click.echo(
            f"  {row.strength:>+8g}  {_percent(row.share):<28}  {_percent(row.shown):<22}  "
            f"{_percent(row.unchanged):<26}  {row.miou.value:.3f} ({row.miou.low:.3f} to "
            f"{row.miou.high:.3f})"
        )


def _percent(estimate: Estimate) -> str:
    low, value, high = (100 * each for each in (estimate.low, estimate.value, estimate.high))
    return f"{value:.3g}% ({low:.3g} to {high:.3g})"
