"""The verbs of the command `labelmint`, which `cli` runs. Needs the extra `cli`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import click
from PIL import Image

import labelmint as package
from labelmint.client import Client, Tls
from labelmint.errors import LabelmintError
from labelmint.model import Model
from labelmint.preview import sheet_from_batch

if TYPE_CHECKING:
    from typing_extensions import Unpack

PREVIEW_OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map")
EXAMINED_PER_SAMPLE = 200  # a filter that keeps less than one of so many ends a preview

_FILE = click.Path(exists=True, dir_okay=False)
_INDEX = click.IntRange(0, 2**64 - 1)
_CONNECTION = (
    click.option(
        "--target",
        envvar="LABELMINT_TARGET",
        show_envvar=True,
        required=True,
        help="host:port, or dns:///name:port for all replicas.",
    ),
    click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
    click.option("--authorities", type=_FILE, help="PEM file to trust instead; implies --tls."),
    click.option("--certificate", type=_FILE, help="PEM file for mutual TLS; implies --tls."),
    click.option("--private-key", type=_FILE, help="PEM file of the certificate's key."),
)


class Connection(TypedDict):
    """The options of _CONNECTION; the token comes from LABELMINT_TOKEN alone."""

    target: str
    tls: bool
    authorities: str | None
    certificate: str | None
    private_key: str | None


def connects(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of _CONNECTION."""
    for option in reversed(_CONNECTION):
        verb = option(verb)
    return verb


def client_from_connection(connection: Connection) -> Client:
    """The client that these options ask for."""
    files = (connection["authorities"], connection["certificate"], connection["private_key"])
    tls = Tls(*files) if connection["tls"] or any(files) else None
    return Client(connection["target"], tls=tls)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="labelmint")
def labelmint() -> None:
    """Labelled training data from a generator, streamed."""


@labelmint.command()
@connects
def models(**connection: Unpack[Connection]) -> None:
    """List the models that a server offers."""
    with client_from_connection(connection) as client:
        served = client.models()
    if not served:
        click.echo(f"{connection['target']} serves no model")
    click.echo("\n\n".join(description_from_model(model) for model in served))


@labelmint.command()
@connects
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write; its suffix names the format.",
)
@click.option("--model", default="", help="Name; may be left out when there is only one.")
@click.option("--count", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--seed", type=_INDEX, default=0, show_default=True)
@click.option("--start-index", type=_INDEX, default=0, show_default=True)
@click.option("--keep-fraction", type=float, help="Keep about this share, the least uncertain.")
@click.option("--max-uncertainty", type=float, help="Keep samples with at most this score.")
@click.option("--truncation-psi", type=float, help="In place of the model's own.")
@click.option("--class-index", type=click.IntRange(0), help="For class-conditional generators.")
@click.option("--views-per-object", type=click.IntRange(1), default=1, show_default=True)
def preview(out: Path, model: str, count: int, **options: Any) -> None:
    """Draw a contact sheet: image, mask, keypoints, depth and uncertainty."""
    if out.suffix.lower() not in Image.registered_extensions():
        raise click.UsageError(f"--out {out} does not end like a picture; use for example .png")
    connection = {name: options.pop(name) for name in Connection.__annotations__}
    with client_from_connection(cast(Connection, connection)) as client:
        shown = client.model(model)
        try:
            batches = client.stream(
                count,
                model=shown.name,
                count=count,
                outputs=[name for name in PREVIEW_OUTPUTS if name in shown.outputs],
                max_examined=count * EXAMINED_PER_SAMPLE,
                **options,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        batch = next(batches, None)
    if batch is None:
        raise LabelmintError(f"{shown.name} delivered no sample; try another --start-index")
    sheet_from_batch(batch, shown).save(out)
    click.echo(f"wrote {out}: {len(batch)} samples; go on with --start-index {batch.next_index}")


def description_from_model(model: Model) -> str:
    """A model in a few aligned lines."""
    height, width = model.image_size
    facts = {
        "bundle": model.bundle_id,
        "family": f"{model.family}, {width} x {height} px, "
        + (f"{model.num_classes} classes" if model.num_classes else "unconditional"),
        "outputs": ", ".join(model.outputs),
        "mask": ", ".join(label.name for label in model.classes),
        "keypoints": ", ".join(model.keypoints),
        "score": _score(model),
        "truncation": f"psi {model.truncation_psi:g} on {model.truncation_cutoff} of "
        f"{model.num_ws} rows",
        "engine": f"{model.engine}, batches of {model.max_batch_size}",
        "licences": ", ".join(model.licences),
    }
    lines = (f"  {name:<11}{fact}" for name, fact in facts.items() if fact)
    return "\n".join((click.style(model.name, bold=True), *lines))


def _score(model: Model) -> str:
    if not model.score_source:
        return "none: keep_fraction and max_uncertainty are refused"
    return f"{model.score_source}, {'calibrated' if model.calibrated else 'not calibrated'}"
