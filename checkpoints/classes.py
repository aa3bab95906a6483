"""classes.toml: names and colors of segmentation classes, in a labeled set or on its own."""

import colorsys
import re
from pathlib import Path

from bundle.records import Strict
from checkpoints.card import ClassCard
from checkpoints.errors import CardError
from checkpoints.toml import read_toml, toml_from_card, write_text

GOLDEN_RATIO = 0.618034
COLOR = re.compile(r"#[0-9a-fA-F]{6}\Z")
MAX_ID = 255  # masks are 8-bit


class ClassEntry(Strict, frozen=True):
    """A class in classes.toml; its id is its position in the list."""

    name: str
    color: str  # "#rrggbb"


class ClassesFile(Strict, frozen=True, kw_only=True):
    """Content of classes.toml."""

    ignore_id: int | None = None  # mask value of pixels without a label
    classes: list[ClassEntry]


class Classes(Strict, frozen=True):
    """Classes of the values of a mask."""

    cards: list[ClassCard]
    ignore_id: int | None = None


def classes_from_file(path: Path) -> Classes:
    """Reads and checks classes.toml. Raises CardError."""
    file = read_toml(path, ClassesFile)
    for i, entry in enumerate(file.classes):
        if not COLOR.match(entry.color):
            raise CardError(f'{path}: classes[{i}].color is {entry.color!r}; write it as "#rrggbb"')
    if not 1 <= len(file.classes) <= MAX_ID + 1:
        raise CardError(f"{path} lists {len(file.classes)} classes; it must list 1 to {MAX_ID + 1}")
    ignore_id = file.ignore_id
    if ignore_id is not None and not len(file.classes) <= ignore_id <= MAX_ID:
        raise CardError(
            f"{path}: ignore_id is {ignore_id}; it must be in [{len(file.classes)}, {MAX_ID}], "
            "above the ids of the classes"
        )
    cards = [ClassCard(name=e.name, color=int(e.color[1:], 16)) for e in file.classes]
    return Classes(cards, ignore_id)


def write_classes(path: Path, classes: Classes) -> None:
    """Writes classes.toml in one step. Raises OSError."""
    entries = [ClassEntry(card.name, f"#{card.color:06x}") for card in classes.cards]
    write_text(path, toml_from_card(ClassesFile(ignore_id=classes.ignore_id, classes=entries)))


def classes_from_names(names: list[str]) -> Classes:
    """Classes with these names, in distinct colors."""
    colors = distinct_colors(len(names))
    return Classes([ClassCard(name=n, color=c) for n, c in zip(names, colors, strict=True)])


def distinct_colors(count: int) -> list[int]:
    """Distinct colors, 0xRRGGBB: black, then hues at steps of the golden ratio."""
    colors = [0x000000]
    for i in range(1, count):
        rgb = colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1, 0.85 - 0.3 * (i % 2), 1 - 0.25 * (i % 3))
        red, green, blue = (round(255 * part) for part in rgb)
        colors.append(red << 16 | green << 8 | blue)
    return colors[:count]
