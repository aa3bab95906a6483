"""`labelmint preview`: a look at a stream before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from PIL import Image

from labelmint.errors import LabelmintError
from labelmint.preview import sheet_from_batch
from labelmint.verbs.connection import client_from_connection, connection_from_options, connects
from labelmint.verbs.sampling import samples

OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map")
EXAMINED_PER_SAMPLE = 200  # a filter that keeps less than one of so many ends a preview


@click.command()
@connects
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write; its suffix names the format.",
)
@click.option("--count", type=click.IntRange(1, 256), default=8, show_default=True)
@samples
def preview(out: Path, model: str, count: int, **options: Any) -> None:
    """Draw a contact sheet: image, mask, keypoints, depth and uncertainty."""
    if out.suffix.lower() not in Image.registered_extensions():
        raise click.UsageError(f"--out {out} does not end like a picture; use for example .png")
    with client_from_connection(connection_from_options(options)) as client:
        shown = client.model(model)
        try:
            batches = client.stream(
                count,
                model=shown.name,
                count=count,
                outputs=[name for name in OUTPUTS if name in shown.outputs],
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
