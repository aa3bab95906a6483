"""Command-line options of labels: where they are, how to read them, and what may pass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from training.images.image_set import ImageSet
from training.labels.annotations import ReadingRules
from training.labels.labelled_set import LabelledSet, LabelPaths, labels_and_counts
from training.labels.table import Allowed
from training.options import FILE, FOLDER, options_together

place_options = options_together(
    click.option(
        "--masks",
        type=click.Path(path_type=Path),
        help="Folder of PNG or LabelMe masks, or a COCO file.  [default: masks/, masks.json, "
        "labelme/ or images/*.json in the set]",
    ),
    click.option(
        "--classes",
        type=FILE,
        help="TOML file of class names and colors.  [default: classes.toml in the set]",
    ),
    click.option(
        "--keypoints",
        type=click.Path(exists=True, path_type=Path),
        help="COCO file of keypoints, or folder of LabelMe files with points.  [default: "
        "keypoints.json in the set, else the points of its masks' files]",
    ),
    click.option(
        "--depth", type=FOLDER, help="Folder of depth maps.  [default: depth/ in the set]"
    ),
)
_rule_options = options_together(
    click.option(
        "--crowds",
        type=click.Choice(["class", "ignore"]),
        default=ReadingRules.crowds,
        help="What COCO's regions with iscrowd 1 are: of their class, or ignored pixels.",
    ),
    click.option(
        "--boxes",
        type=click.Choice(["leave-out", "paint"]),
        default=ReadingRules.boxes,
        help="What to do with COCO's and YOLO's boxes without a region.",
    ),
    click.option(
        "--empty",
        type=click.Choice(["leave-out", "background"]),
        default=ReadingRules.empty,
        help="What images are that a label file lists without an annotation.",
    ),
)
_allowed_options = options_together(
    click.option("--allow-empty-classes", is_flag=True, help="Accept classes that no pixel has."),
    click.option(
        "--allow-ignored", is_flag=True, help="Accept that most labeled pixels are ignored."
    ),
)


@dataclass(frozen=True)
class LabelChoice:
    """Labels that the user names, and how to read them."""

    folder: Path
    paths: LabelPaths
    rules: ReadingRules
    allowed: Allowed

    def read(self, images: ImageSet) -> LabelledSet:
        """Reads the labels and prints what they hold. Raises LabelError for labels that nobody
        would train on."""
        labels, counts, notes = labels_and_counts(images, self.paths, self.rules)
        for note in notes:
            click.echo(note, err=True)
        click.echo("\n".join(counts.lines(len(labels), len(images))))
        counts.check(self.allowed, images.folder)
        return labels


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of what labels say and may hold, passed on as `rules` and `allowed`."""

    @wraps(command)
    def with_rules(
        *, crowds: Any, boxes: Any, empty: Any, allow_empty_classes: bool, allow_ignored: bool,
        **others: Any,
    ) -> Any:  # fmt: skip
        rules = ReadingRules(crowds, boxes, empty)
        return command(rules=rules, allowed=Allowed(allow_empty_classes, allow_ignored), **others)

    return _rule_options(_allowed_options(with_rules))


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name labels, passed on as one LabelChoice `choice`."""

    @wraps(command)
    def with_choice(
        *, folder: Path, masks: Path | None, classes: Path | None, keypoints: Path | None,
        depth: Path | None, rules: ReadingRules, allowed: Allowed, **others: Any,
    ) -> Any:  # fmt: skip
        paths = LabelPaths(classes, masks, keypoints, depth)
        return command(choice=LabelChoice(folder, paths, rules, allowed), **others)

    folder_option = click.option(
        "--labels",
        "folder",
        type=FOLDER,
        required=True,
        help="Image set written by `sample` or `invert`, with labels added.",
    )
    return folder_option(place_options(reading_options(with_choice)))
