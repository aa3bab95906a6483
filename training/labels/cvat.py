"""Masks and keypoints from CVAT: "CVAT for images 1.1" (XML) and "Segmentation mask 1.1" (PNG).

Shapes of a higher z_order cover those of a lower one, and later shapes earlier ones. Elements of a
skeleton, and points, are keypoints named by their label; points of one label in one shape are
numbered, NAME_1, NAME_2. CVAT's COCO files are read by coco.py.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse
from numpy.typing import NDArray

from checkpoints import ClassCard, Classes
from labelmint.datasets.stored_files import opened_regular_file
from labelmint.errors import printable_from_text
from training.errors import LabelError
from training.labels.annotations import (
    MAX_FILE_BYTES,
    Annotations,
    Part,
    Point,
    Source,
    add_point,
    bytes_of_file,
)
from training.labels.png import Palette, source_from_png
from training.labels.polygons import (
    mask_from_polygons,
    mask_from_runs,
    polygon_from_box,
    polygon_from_ellipse,
)
from training.labels.scaling import LabelSizes

REGIONS = ("polygon", "box", "ellipse", "mask")
OTHERS = ("polyline", "cuboid")
NO_CLASS = ("points", "skeleton", "tag", "polyline", "cuboid")  # types of labels
LABELMAP, MASKS = "labelmap.txt", "SegmentationClass"
MAX_COLOR = 0xFFFFFF
COLOR_VALUE = re.compile("[0-9]{1,3}")
MAX_LABELMAP_BYTES = 1 << 20


def source_from_cvat_xml(path: Path) -> Source:
    """Reads the images of an XML file one at a time. Raises LabelError."""
    labels, colors = _labels(path)

    def images() -> Iterator[Annotations]:
        found = False
        for element in _elements(path, ("image", "track")):
            if element.tag == "track":
                raise LabelError(f"{path} has tracks of a video; export as CVAT for images 1.1")
            found = True
            yield _annotations(path, element)
        if not found:
            raise LabelError(f"{path} has no <image>; is it CVAT for images 1.1?")

    return Source(path, images, labels=labels, colors=colors)


def source_from_cvat_masks(folder: Path) -> Source:
    """Reads SegmentationClass/ by the colors of labelmap.txt. Raises LabelError."""
    cards: list[ClassCard] = []
    path = folder / LABELMAP
    try:
        lines = bytes_of_file(path, MAX_LABELMAP_BYTES).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.split(":")[0].split(",")
        if values == [""]:
            cards.append(ClassCard(name=name, color=voc_color(len(cards))))
            continue
        if len(values) != 3 or not all(COLOR_VALUE.fullmatch(v) and int(v) < 256 for v in values):
            raise LabelError(
                f"{path}, line {number} is {line[:80]!r}; it must be label:red,green,blue::"
            )
        red, green, blue = map(int, values)
        cards.append(ClassCard(name=name, color=red << 16 | green << 8 | blue))
    cards.sort(key=lambda card: card.name.casefold() != "background")  # class 0, where nothing is
    if not 1 <= len(cards) <= 255:
        raise LabelError(f"{path} lists {len(cards)} labels; it must list 1 to 255")
    if len({card.color for card in cards}) < len(cards):
        raise LabelError(f"{path} gives two labels one color; give each its own in CVAT")
    masks = folder / MASKS if (folder / MASKS).exists() else folder
    return source_from_png(masks, Palette(Classes(cards), by_color=True))


def voc_color(number: int) -> int:
    """Color 0xRRGGBB that Pascal VOC gives a class: bits of the number, three at a time, go to the
    highest bits of red, green and blue that are left."""
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red |= (number & 1) << bit
        green |= (number >> 1 & 1) << bit
        blue |= (number >> 2 & 1) << bit
        number >>= 3
    return red << 16 | green << 8 | blue


def _labels(path: Path) -> tuple[tuple[str, ...] | None, Mapping[str, int]]:
    """Names and colors of the labels that may have regions; None for a file without <meta>."""
    for meta in _elements(path, ("meta", "image")):
        if meta.tag == "image":
            return None, {}
        names, colors = [], {}
        for label in meta.iter("label"):
            name = label.findtext("name")
            if not name or label.find("parent") is not None:
                continue
            if (label.findtext("type") or "any") in NO_CLASS:
                continue
            names.append(name)
            try:
                color = int((label.findtext("color") or "").lstrip("#"), 16)
            except ValueError:
                continue
            colors[name] = color & MAX_COLOR
        return tuple(names), colors
    return None, {}


def _elements(path: Path, tags: tuple[str, ...]) -> Iterator[Element]:
    """The elements below the root with these tags, each forgotten after it was used."""
    try:
        with opened_regular_file(path) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE_BYTES:
                raise LabelError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
            depth, root = 0, None
            for event, element in iterparse(stream, ("start", "end"), forbid_dtd=True):
                if event == "start":
                    root = element if root is None else root
                    depth += 1
                    continue
                depth -= 1
                if depth == 1 and root is not None:
                    if element.tag in tags:
                        yield element
                    root.clear()
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror})") from error
    except (ParseError, DefusedXmlException, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise LabelError(f"{path} is no XML file of CVAT: {text}") from error


def _annotations(path: Path, image: Element) -> Annotations:
    name = image.get("name") or ""
    origin = f"{path} ({printable_from_text(name)})"
    width, height = (_number(origin, image, key) for key in ("width", "height"))
    size = (round(height), round(width))
    shapes = [e for e in image if e.tag in REGIONS and e.get("outside") != "1"]
    shapes.sort(key=lambda e: _number(origin, e, "z_order", 0))
    points: dict[str, Point] = {}
    left_out = []
    for element in image:
        if element.tag in OTHERS:
            raise LabelError(
                f"{origin} has a {element.tag} ({element.get('label')!r}); masks are read from "
                f"{', '.join(REGIONS)}, keypoints from points and skeleton: change it, or delete it"
            )
        if element.tag == "points":
            _add_points(origin, points, element)
        elif element.tag == "skeleton":
            for child in element.iter("points"):
                _add_points(origin, points, child)
        elif element.tag == "tag":
            left_out.append("tag")
    parts = []
    for element in shapes:

        def draw(sizes: LabelSizes, element: Element = element) -> NDArray[np.bool_]:
            return _region(origin, element, size, sizes)

        parts.append(Part(element.get("label") or "", draw))
    return Annotations(
        name, origin, size, tuple(parts), points=points or None, left_out=tuple(left_out)
    )


def _add_points(origin: str, points: dict[str, Point], element: Element) -> None:
    corners = _corners(origin, element)
    label = element.get("label") or ""
    visible = element.get("outside") != "1"
    for number, (x, y) in enumerate(corners, 1):
        name = label if len(corners) == 1 else f"{label}_{number}"
        add_point(points, name, (x, y, visible), origin)


def _region(
    origin: str, element: Element, size: tuple[int, int], sizes: LabelSizes
) -> NDArray[np.bool_]:
    def number(key: str, default: float | None = None) -> float:
        return _number(origin, element, key, default)

    if element.tag == "mask":
        return sizes.resized(origin, _region_of_mask(origin, element, size))
    if element.tag == "polygon":
        outline = [value for corner in _corners(origin, element) for value in corner]
    elif element.tag == "ellipse":
        outline = polygon_from_ellipse(
            (number("cx"), number("cy")), (number("rx"), number("ry")), number("rotation", 0)
        )
    else:
        left, top, right, bottom = (number(key) for key in ("xtl", "ytl", "xbr", "ybr"))
        middle, angle = ((left + right) / 2, (top + bottom) / 2), number("rotation", 0)
        outline = polygon_from_box(left, top, right - left, bottom - top, angle, middle)
    return mask_from_polygons(origin, [outline], size, sizes)


def _region_of_mask(origin: str, element: Element, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Run lengths, row by row, of the box at left, top; bool [height, width] of the image."""
    left, top, width, height = (
        round(_number(origin, element, key)) for key in ("left", "top", "width", "height")
    )
    if min(left, top) < 0 or min(width, height) < 1:
        raise LabelError(f"{origin} has a mask of {width}x{height} at {left}, {top}")
    if left + width > size[1] or top + height > size[0]:
        raise LabelError(f"{origin} has a mask that reaches past the image")
    try:
        runs = [int(run) for run in (element.get("rle") or "").split(",")]
    except ValueError as error:
        raise LabelError(f"{origin} has a mask whose rle is no list of numbers") from error
    region = np.zeros(size, bool)
    region[top : top + height, left : left + width] = mask_from_runs(origin, runs, (height, width))
    return region


def _corners(origin: str, element: Element) -> list[tuple[float, float]]:
    try:
        pairs = [pair.split(",") for pair in (element.get("points") or "").split(";")]
        corners = [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise LabelError(
            f"{origin} has a {element.tag} ({element.get('label')!r}) whose points are not x,y;x,y"
        ) from error
    if not all(math.isfinite(value) for corner in corners for value in corner):
        raise LabelError(f"{origin} has a {element.tag} with points that are not finite")
    return corners


def _number(origin: str, element: Element, key: str, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise LabelError(f"{origin} has a <{element.tag}> whose {key} is {text!r}; it is a number")
    return value
