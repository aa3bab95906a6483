"""`python -m training labels`: labels of other tools -> a label folder, checked, and back."""

import shutil
import tempfile
from pathlib import Path
from typing import get_args

import click

from checkpoints import Classes, classes_from_file
from training.errors import TrainingError
from training.images.image_set import image_set_from_folder
from training.labels.annotations import ReadingRules
from training.labels.formats import Format, sources_from_path, write_labels_as
from training.labels.label_folder import (
    CLASSES,
    KEYPOINTS,
    MASKS,
    Pictures,
    import_labels,
    label_folder,
    pictures_from_folder,
)
from training.labels.labelled_set import LabelPaths, label_paths, sources_of_set
from training.labels.options import (
    place_options,
    reading_options,
)
from training.labels.overlay import write_overlays
from training.labels.replace import existing_labels, replaced_labels
from training.labels.table import Allowed
from training.options import FILE, FOLDER, force_option, options_together

FORMATS = click.Choice(get_args(Format))
PATH = click.Path(path_type=Path)
from_options = options_together(
    click.argument("path", type=PATH),
    click.option(
        "--from", "from_", type=FORMATS, required=True, help="Tool that wrote the labels."
    ),
    click.option(
        "--images",
        type=FOLDER,
        required=True,
        help="Image set that the labels are of, or a folder of pictures.",
    ),
    click.option(
        "--classes",
        type=FILE,
        help="TOML file of class names and colors.  [default: the tool's own names]",
    ),
)


@click.group()
def labels() -> None:
    """Read labels of annotation tools, check them, and write them for other tools."""


@labels.command("import")
@from_options
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help=f"Folder to write {MASKS}/, {CLASSES} and {KEYPOINTS} to, such as that of --images.",
)
@force_option
@reading_options
def import_(
    path: Path,
    from_: Format,
    images: Path,
    classes: Path | None,
    out: Path,
    force: bool,
    rules: ReadingRules,
    allowed: Allowed,
) -> None:
    """Read a tool's labels into a folder to train on.

    PATH is the file that the tool exported, or the folder that its archive was unpacked to.
    """
    old = existing_labels(out)
    if old and not force:
        raise TrainingError(f"{old[0]} exists; give --force to replace it, or another --out")
    pictures = pictures_from_folder(images)
    with replaced_labels(out) as folder:
        _import(path, from_, pictures, classes, rules, allowed, folder)
    for written in existing_labels(out):
        click.echo(f"wrote {written}")


@labels.command()
@from_options
@click.option("--to", type=FORMATS, required=True, help="Tool to write the labels for.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write to; it must be new.")
@reading_options
def convert(
    path: Path,
    from_: Format,
    images: Path,
    classes: Path | None,
    to: Format,
    out: Path,
    rules: ReadingRules,
    allowed: Allowed,
) -> None:
    """Write one tool's labels for another.

    PATH is the file that the first exported, or the folder that its archive was unpacked to.
    """
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out} exists and is not empty; name a new folder")
    pictures = pictures_from_folder(images)
    with tempfile.TemporaryDirectory(prefix="labels-") as made:
        folder = Path(made)
        _import(path, from_, pictures, classes, rules, allowed, folder)
        if to == "masks":
            shutil.copytree(folder, out, dirs_exist_ok=True)
            written = out
        else:
            written = write_labels_as(to, label_folder(folder, pictures), out)
    click.echo(f"wrote {written}")


@labels.command()
@click.argument("folder", type=FOLDER)
@place_options
@click.option(
    "--out", type=FOLDER, help="Folder to write the sheets to.  [default: check/ in FOLDER]"
)
@reading_options
def check(
    folder: Path,
    masks: Path | None,
    classes: Path | None,
    keypoints: Path | None,
    depth: Path | None,
    out: Path | None,
    rules: ReadingRules,
    allowed: Allowed,
) -> None:
    """Count an image set's labels, and draw them all.

    FOLDER is the image set. Every image is drawn with its labels, but depth. Ends with an error
    where training would.
    """
    images = image_set_from_folder(folder)
    paths = label_paths(folder, LabelPaths(classes, masks, keypoints, depth))
    known = None if paths.classes is None else classes_from_file(paths.classes)
    pictures = pictures_from_folder(folder)
    with tempfile.TemporaryDirectory() as made:
        sources = sources_of_set(paths, known, rules)
        counts, labelled, notes = import_labels(sources, pictures, known, rules, Path(made))
        for note in notes:
            click.echo(note, err=True)
        click.echo("\n".join(counts.lines(labelled, len(images))))
        sheets = write_overlays(
            out or folder / "check", label_folder(Path(made), pictures), str(folder)
        )
    click.echo(f"\nsheets: {sheets[0]}" + (f" to {sheets[-1].name}" if sheets[1:] else ""))
    counts.check(allowed, folder)


def _import(
    path: Path,
    from_: Format,
    pictures: Pictures,
    classes_path: Path | None,
    rules: ReadingRules,
    allowed: Allowed,
    out: Path,
) -> None:
    """Writes the tool's labels to a folder; prints their counts, and checks them."""
    classes: Classes | None = None if classes_path is None else classes_from_file(classes_path)
    sources = sources_from_path(from_, path, classes, rules)
    counts, labelled, notes = import_labels(sources, pictures, classes, rules, out)
    for note in notes:
        click.echo(note, err=True)
    click.echo("\n".join(counts.lines(labelled, len(pictures.files))))
    counts.check(allowed, path)
