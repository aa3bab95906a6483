"""Masks from PNG files, one per image: values are class ids, or colors are those of the classes.

modes 1, L, P, 16 bit    the value is the class id; of a palette, the index
RGB                      the color is that of a class, exactly
LA, RGBA, PA             the same; where nothing is drawn (alpha 0), class 0
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from checkpoints import Classes
from training.errors import LabelError
from training.images.picture_files import opened_picture
from training.labels.annotations import Annotations, Source
from training.labels.scaling import LabelSizes

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
IDS, COLORS = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I"), ("RGB", "RGBA", "PA")


@dataclass(frozen=True)
class Palette:
    """What pixel values mean."""

    classes: Classes
    by_color: bool = False  # the colors of palette images count, not their indices


def source_from_png(folder: Path, palette: Palette) -> Source:
    """STEM.png of each labeled image, read one at a time. Raises LabelError."""
    files = files_of_folder(folder, SUFFIXES)

    def images() -> Iterator[Annotations]:
        for path in files:

            def ids(sizes: LabelSizes, path: Path = path) -> NDArray[np.uint8]:
                return sizes.resized(path, mask_from_file(path, palette, sizes))

            yield Annotations(path.name, str(path), None, ids=ids)

    return Source(folder, images, len(files), classes=palette.classes)


def files_of_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes, sorted. Raises LabelError."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    except OSError as error:
        raise LabelError(f"{folder} cannot be read ({error.strerror})") from error


def mask_from_file(
    path: Path, palette: Palette, sizes: LabelSizes | None = None
) -> NDArray[np.uint8]:
    """Class ids of a file, [height, width]. Raises LabelError.

    sizes: those that it may have; another is refused before it is decoded. None: any.
    """
    image = open_upright(path, sizes)
    if image.mode in COLORS or (palette.by_color and image.mode == "P"):
        rgba = np.array(image.convert("RGBA"))
        return _ids_from_colors(path, rgba, palette.classes)
    if image.mode == "LA":
        values, alpha = np.array(image).transpose(2, 0, 1)
        return _ids(path, np.where(_drawn(path, alpha), values, 0), palette.classes)
    if image.mode in IDS:
        return _ids(path, np.array(image), palette.classes)
    raise LabelError(
        f"{path} has mode {image.mode}; masks have modes {', '.join((*IDS, 'LA', *COLORS))}"
    )


def open_upright(path: Path, sizes: LabelSizes | None = None) -> Image.Image:
    """Reads an image file, turned by its EXIF orientation, in its own mode; `sizes` as for
    `mask_from_file`. Raises LabelError."""
    with opened_picture(path) as image:
        if sizes is not None and not sizes.has_area_of((image.height, image.width)):
            sizes.scale(path, (image.height, image.width))  # raises
        return ImageOps.exif_transpose(image)


def gray_from_file(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A gray picture of eight bits, uint8 [height, width] of this size. Raises LabelError."""
    with opened_picture(path) as image:
        if image.size != size[::-1] or image.mode not in ("L", "P"):
            raise LabelError(
                f"{path} is {image.width}x{image.height} pixels of mode {image.mode}; it must be "
                f"{size[1]}x{size[0]} of mode L"
            )
        return np.array(image)


def _ids(path: Path, values: NDArray[np.generic], classes: Classes) -> NDArray[np.uint8]:
    ids = values.astype(np.int64)
    wrong = ids[((ids >= len(classes.cards)) | (ids < 0)) & (ids != _ignored(classes))]
    if wrong.size:
        ignored = (
            "" if classes.ignore_id is None else f", and {classes.ignore_id} marks ignored pixels"
        )
        raise LabelError(
            f"{path} has class id {wrong.max()}; with {len(classes.cards)} classes the largest is "
            f"{len(classes.cards) - 1}{ignored}"
        )
    return ids.astype(np.uint8)


def _ignored(classes: Classes) -> int:
    return -1 if classes.ignore_id is None else classes.ignore_id


def _drawn(path: Path, alpha: NDArray[np.uint8]) -> NDArray[np.bool_]:
    partly = int(((alpha > 0) & (alpha < 255)).sum())
    if partly:
        raise LabelError(
            f"{path} has {partly} pixels that are partly transparent; save it without smooth edges"
        )
    return alpha > 0


def _ids_from_colors(path: Path, rgba: NDArray[np.uint8], classes: Classes) -> NDArray[np.uint8]:
    """Class ids of uint8 [height, width, 4]."""
    table: dict[int, int] = {}
    for number, card in enumerate(classes.cards):
        if card.color in table:
            raise LabelError(
                f"{path} holds colors, but the classes {classes.cards[table[card.color]].name} and "
                f"{card.name} have one color, #{card.color:06x}; give each its own"
            )
        table[card.color] = number
    drawn = _drawn(path, rgba[..., 3])
    red, green, blue = (rgba[..., i].astype(np.int32) for i in range(3))
    colors = np.where(drawn, red << 16 | green << 8 | blue, classes.cards[0].color)
    found, inverse = np.unique(colors, return_inverse=True)
    ids = np.zeros(len(found), np.uint8)
    for i, color in enumerate(found.tolist()):
        if color not in table:
            count = int((colors == color).sum())
            near = min(classes.cards, key=lambda card: _distance(card.color, color))
            raise LabelError(
                f"{path} has the color #{color:06x} in {count} pixels, and no class has it "
                f"(nearest: {near.name}, #{near.color:06x}); save masks without smooth edges or "
                "JPEG, or correct the colors of the classes"
            )
        ids[i] = table[color]
    return ids[inverse.reshape(colors.shape)]


def _distance(first: int, second: int) -> int:
    return sum(abs((first >> shift & 255) - (second >> shift & 255)) for shift in (0, 8, 16))
