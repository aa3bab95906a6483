"""`labelmint models`: a description of every model of a server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from labelmint.cli.connection import Connection, client_from_connection, connection_options
from labelmint.errors import printable_from_text
from labelmint.model import Direction, Model, Proposal, percent_from_bound

if TYPE_CHECKING:
    from typing_extensions import Unpack


@click.command()
@connection_options
def models(**connection: Unpack[Connection]) -> None:
    """List the models of a server.

    Prints the bundle, outputs, sizes, classes, views, engine and license tags of each model.
    """
    with client_from_connection(connection) as client:
        served = client.models()
    if not served:
        click.echo(f"{connection['target']} has no models")
    click.echo("\n\n".join(description_from_model(model) for model in served))


def description_from_model(model: Model) -> str:
    """A model as aligned lines, one per property; unprintable characters are escaped."""
    height, width = model.image_size
    facts = {
        "bundle": model.bundle_id,
        "family": f"{model.family}{', refined' if model.refined else ''}, {width} x {height} px, "
        + (f"{model.num_classes} classes" if model.num_classes else "unconditional"),
        "outputs": ", ".join(model.outputs),
        "mask": ", ".join(label.name for label in model.classes),
        "keypoints": ", ".join(model.keypoints),
        "score": _score(model),
        "certificate": _certificate(model),
        "content": "counted, for where" if model.predicates else "not counted: where is refused",
        "proposals": ", ".join(f"{p.name} ({p.where}; {_figures(p)})" for p in model.proposals),
        "directions": ", ".join(f"{d.name} ({_ranges(d)})" for d in model.directions),
        "truncation": f"psi {model.truncation_psi:g} on {model.truncation_cutoff} of "
        f"{model.num_ws} rows",
        "views": _views(model),
        "engine": f"{model.engine}, batches of {model.max_batch_size}",
        "licences": ", ".join(model.licences),
    }
    lines = (f"  {name:<12}{printable_from_text(fact)}" for name, fact in facts.items() if fact)
    return "\n".join((click.style(printable_from_text(model.name), bold=True), *lines))


def _views(model: Model) -> str:
    known = [c.azimuth_deg for c in model.view_bank if not math.isnan(c.azimuth_deg)]
    words = f"{len(model.view_bank)} in the bank" if model.view_bank else ""
    return f"{words}, azimuth {min(known):.0f} to {max(known):.0f} degrees" if known else words


def _figures(proposal: Proposal) -> str:
    return (
        f"{100 * proposal.share.value:.2g}% of all samples, "
        f"{100 * proposal.generated_share.value:.2g}% of those it generates"
    )


def _ranges(direction: Direction) -> str:
    first, last = direction.strengths[0], direction.strengths[-1]
    return (
        f"{direction.changes} on {100 * first.share.value:.2g}% of the pixels at "
        f"{first.strength:g}, {100 * last.share.value:.2g}% at {last.strength:g}"
    )


def _score(model: Model) -> str:
    if not model.score_source:
        return "none: keep_fraction and max_uncertainty are refused"
    return f"{model.score_words()}; {'calibrated' if model.calibrated else 'not calibrated'}"


def _certificate(model: Model) -> str:
    known = model.certificate
    if known is None:
        return ""
    bounds = ", ".join(
        ("all samples" if row.max_uncertainty is None else f"up to {row.max_uncertainty:.4g}")
        + f" {percent_from_bound(row.upper_bound)}"
        for row in known.thresholds
    )
    return f"{known.reviewed} reviews; wrong pixels at most, {known.confidence:.0%} sure: {bounds}"
