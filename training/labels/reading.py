"""A source of labels, and the sizes of the set's images -> arrays, one image at a time.

The source is read twice: for the names it uses, and for its regions. Nothing is left out without a
note.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from checkpoints import ClassCard, Classes, classes_from_names
from labelmint.errors import printable_from_text
from training.errors import LabelError
from training.labels.annotations import (
    BACKGROUND,
    IGNORE,
    Annotations,
    ReadingRules,
    Source,
    is_background,
)
from training.labels.names import SHOWN, line_of_unmatched, matching_stem, nearest, some
from training.labels.scaling import LabelSizes

DEFAULT_IGNORE_ID = 255  # mask value of unlabeled pixels, unless classes.toml gives another
MANY = 5  # shapes of the most frequent label, from which a label used once may be a typo


@dataclass(frozen=True)
class ImageLabels:
    """Labels of one image."""

    stem: str
    mask: NDArray[np.uint8] | None  # class ids [H, W]; None: no masks were drawn
    points: NDArray[np.float32] | None  # [K, 3]: x, y in pixels (centers at +0.5), visible 0 or 1


@dataclass(frozen=True)
class Reading:
    """Labels of the set's images in one source."""

    images: Callable[[], Iterator[ImageLabels]]  # one at a time; raises LabelError
    count: int  # of images
    classes: Classes | None  # None: the source has no masks
    ignore_id: int
    keypoint_names: tuple[str, ...]  # empty: the source has no keypoints
    skeleton: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]  # what was left out, and what looks wrong, one line each


@dataclass
class _Survey:
    """What a source uses, for the images of the set."""

    stems: dict[str, str] = field(default_factory=dict)  # of the name of an image
    unmatched: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)  # regions of each label
    first: dict[str, str] = field(default_factory=dict)  # label -> origin of its first region
    points: set[str] = field(default_factory=set)  # names of keypoints
    left_out: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)  # names of images
    has_masks: bool = False


def reading_from_source(
    source: Source,
    sizes: Mapping[str, LabelSizes],
    classes: Classes | None,
    rules: ReadingRules,
    may_be_empty: bool = False,
) -> Reading:
    """Finds out what the source has for the images, whose stems `sizes` lists.

    Args:
        source: the label file, or folder of label files.
        sizes: of the labels that each image accepts.
        classes: from classes.toml; None takes those of the source.
        rules: what the source cannot say itself.
        may_be_empty: whether it may have names of keypoints and none in any image, as the studio
            writes it before the first is placed.

    Raises LabelError.
    """
    survey = _survey(source, sizes, rules)
    has_masks = survey.has_masks or (rules.empty == "background" and source.labels != ())
    if not has_masks and not survey.points and not (may_be_empty and source.keypoint_names):
        left = _line_of_left_out(survey.left_out)
        raise LabelError(
            f"{source.path} has no region and no keypoint in the images of the set"
            + (f"; left out: {left}" if left else "")
        )
    found = classes or source.classes
    if has_masks and found is None:
        found = _classes_in_use(source, survey)
    ignore_id = DEFAULT_IGNORE_ID if found is None else ignore_id_of(found)
    ids = {} if found is None else _ids_by_label(survey, found, ignore_id)
    names = source.keypoint_names or tuple(sorted(survey.points))

    def images() -> Iterator[ImageLabels]:
        bar = tqdm(
            source.images(), source.path.name, source.count, leave=False, unit="image", disable=None
        )
        for annotations in bar:
            stem = survey.stems.get(annotations.name)
            if stem is None or (annotations.empty and rules.empty == "leave-out"):
                continue
            mask = None
            if has_masks:
                mask = _mask(annotations, sizes[stem], ids, source.smaller_on_top, rules)
            points = _points(annotations, sizes[stem], names) if names else None
            yield ImageLabels(stem, mask, points)

    return Reading(
        images,
        len(survey.stems) - (len(survey.empty) if rules.empty == "leave-out" else 0),
        found if has_masks else None,
        ignore_id,
        names if survey.points else (),
        source.skeleton,
        (*source.notes, *_notes(source, survey, sizes, classes, rules)),
    )


def ignore_id_of(classes: Classes) -> int:
    """Mask value of unlabeled pixels. Raises LabelError when there is none left."""
    if classes.ignore_id is not None:
        return classes.ignore_id
    if len(classes.cards) > DEFAULT_IGNORE_ID:
        raise LabelError("256 classes leave no mask value for unlabeled pixels; use at most 255")
    return DEFAULT_IGNORE_ID


def _survey(source: Source, sizes: Mapping[str, LabelSizes], rules: ReadingRules) -> _Survey:
    survey = _Survey()
    seen: dict[str, str] = {}  # stem -> name
    for annotations in source.images():
        stem = matching_stem(annotations.name, sizes)
        if stem is None:
            survey.unmatched.append(annotations.name)
            continue
        if stem in seen:
            raise LabelError(
                f"{source.path} has labels of the image {stem} twice: {seen[stem]} and "
                f"{annotations.origin}; keep one"
            )
        seen[stem] = annotations.origin
        survey.stems[annotations.name] = stem
        if annotations.size is not None:
            sizes[stem].scale(annotations.origin, annotations.size)
        survey.left_out.update(annotations.left_out)
        survey.labels.update(part.label for part in annotations.parts)
        for part in annotations.parts:
            survey.first.setdefault(part.label, annotations.origin)
        survey.points |= set(annotations.points or ())
        survey.has_masks |= bool(annotations.parts) or annotations.ids is not None
        if annotations.empty:
            survey.empty.append(annotations.name)
    if not survey.stems:
        names = (
            f"it names {line_of_unmatched(survey.unmatched, list(sizes))}"
            if survey.unmatched
            else "it names none"
        )
        raise LabelError(
            f"{source.path} has labels of no image of the set ({some(sizes)}); {names}"
        )
    return survey


def _classes_in_use(source: Source, survey: _Survey) -> Classes:
    """Class 0 "background", then the source's classes, else the labels in use, sorted."""
    if source.labels is None:
        labels = sorted(survey.labels)
    else:
        only_points = survey.points - survey.labels.keys()
        labels = [label for label in source.labels if label not in only_points]
    names = [n for n in labels if not is_background(n) and n != IGNORE]
    drawn = classes_from_names(["background", *names])
    if len({source.colors.get(name, 0) for name in names} - {0}) < len(names):
        return drawn  # some have no color of their own
    cards = [ClassCard(name=name, color=source.colors[name]) for name in names]
    return Classes([drawn.cards[0], *cards])


def _ids_by_label(survey: _Survey, classes: Classes, ignore_id: int) -> dict[str, int]:
    ids = {card.name: i for i, card in enumerate(classes.cards)}
    known = list(ids)
    for label in survey.labels:
        if label in ids:
            continue
        if label == IGNORE:
            ids[label] = ignore_id
        elif label == BACKGROUND or (is_background(label) and is_background(known[0])):
            ids[label] = 0
        else:
            near = nearest(label, ids)
            raise LabelError(
                f"{survey.first[label]} has the label {label!r}; the classes are {', '.join(known)}"
                + (f" (nearest: {near})" if near else "")
            )
    return ids


def _mask(
    annotations: Annotations,
    sizes: LabelSizes,
    ids: Mapping[str, int],
    smaller_on_top: bool,
    rules: ReadingRules,
) -> NDArray[np.uint8] | None:
    if annotations.ids is not None:
        return annotations.ids(sizes)
    if not annotations.parts and rules.empty == "leave-out":
        return None
    mask = np.zeros((sizes.height, sizes.width), np.uint8)
    if not smaller_on_top:
        for part in annotations.parts:
            mask[part.draw(sizes)] = ids[part.label]
        return mask
    drawn = [(ids[part.label], part.draw(sizes)) for part in annotations.parts]
    for number, region in sorted(drawn, key=lambda pair: -int(pair[1].sum())):
        mask[region] = number
    return mask


def _points(
    annotations: Annotations, sizes: LabelSizes, names: tuple[str, ...]
) -> NDArray[np.float32] | None:
    if annotations.points is None:
        return None
    size = annotations.size or (sizes.height, sizes.width)
    scale = np.array(sizes.scale(annotations.origin, size))
    row = np.zeros((len(names), 3), np.float32)
    for i, name in enumerate(names):
        x, y, visible = annotations.points.get(name, (0.0, 0.0, False))
        if not visible:
            continue
        height, width = size
        if annotations.fractions:
            x, y = x * width, y * height
        if not (-0.5 <= x <= width + 0.5 and -0.5 <= y <= height + 0.5):
            raise LabelError(
                f"{annotations.origin} has the keypoint {name!r} at ({x:g}, {y:g}); the image is "
                f"{width}x{height} pixels"
            )
        row[i, :2] = np.clip((x, y), 0, (width, height)) * scale
        row[i, 2] = 1
    return row


def _notes(
    source: Source,
    survey: _Survey,
    sizes: Mapping[str, LabelSizes],
    classes: Classes | None,
    rules: ReadingRules,
) -> list[str]:
    notes = []
    if survey.unmatched:
        notes.append(
            f"{len(survey.unmatched)} images of {source.path} are not of the set: "
            f"{line_of_unmatched(survey.unmatched, list(sizes))}"
        )
    if survey.empty and rules.empty == "leave-out":
        names = ", ".join(map(printable_from_text, survey.empty[:SHOWN]))
        more = " ..." if len(survey.empty) > SHOWN else ""
        notes.append(
            f"{len(survey.empty)} images of {source.path} have no annotation and are left out "
            f"({names}{more}); --empty background takes them as background"
        )
    if survey.left_out:
        notes.append(f"left out of {source.path}: {_line_of_left_out(survey.left_out)}")
    if classes is None and source.labels is None and source.classes is None:
        notes += _likely_typos(survey)
    return notes


def _line_of_left_out(left_out: Counter[str]) -> str:
    left_out = Counter({printable_from_text(kind): count for kind, count in left_out.items()})
    how = {"box": " without a region (--boxes paint fills it)"}
    return ", ".join(f"{count} x {kind}{how.get(kind, '')}" for kind, count in left_out.items())


def _likely_typos(survey: _Survey) -> list[str]:
    """Warnings of labels that are used once against many, or differ in case alone."""
    notes = []
    most = max(survey.labels.values(), default=0)
    for label, count in survey.labels.items():
        near = nearest(label, survey.labels)
        same = near is not None and near.strip().casefold() == label.strip().casefold()
        if (count == 1 and most >= MANY) or (same and near and count < survey.labels[near]):
            meant = f"; did you mean {near!r}?" if near else ""
            notes.append(
                f"warning: the label {label!r} is used {count} times ({survey.first[label]}), and "
                f"is a class of its own{meant} classes.toml would refuse a misspelled label"
            )
    return notes
