"""What a label file says of its images, whatever tool wrote it: between formats and arrays.

    label file --(coco, cvat, labelme, ... .py)--> Source of Annotations --(reading.py)--> arrays

A source is read one image at a time, and may be read several times.
"""

import codecs
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from checkpoints import Classes
from labelmint.datasets.stored_files import opened_regular_file
from training.errors import LabelError
from training.labels.scaling import LabelSizes

BACKGROUND, IGNORE = "_background_", "__ignore__"  # labels with a meaning, in LabelMe and here
MAX_FILE_BYTES = 1 << 30  # of one label file

Point = tuple[float, float, bool]  # x, y in pixels (centers at +0.5) of the label's size; visible


@dataclass(frozen=True)
class ReadingRules:
    """Choices for what a label file cannot say by itself."""

    crowds: Literal["class", "ignore"] = "class"  # COCO's regions with iscrowd 1
    boxes: Literal["leave-out", "paint"] = "leave-out"  # of COCO and YOLO, without a region
    empty: Literal["leave-out", "background"] = "leave-out"  # images without an annotation


@dataclass(frozen=True)
class Part:
    """A region of one class."""

    label: str
    draw: Callable[[LabelSizes], NDArray[np.bool_]]  # bool [H, W] at the crop's size


@dataclass(frozen=True)
class Annotations:
    """All that a label file says of one image."""

    name: str  # of the image, as the tool writes it; may be a path
    origin: str  # file and record, for messages
    size: tuple[int, int] | None  # (height, width) that the label is in; None: that of the image
    parts: tuple[Part, ...] = ()
    ids: Callable[[LabelSizes], NDArray[np.uint8]] | None = None  # or class ids [H, W] at once
    points: Mapping[str, Point] | None = None  # None: without keypoint labels
    fractions: bool = False  # points are fractions of width and height
    left_out: tuple[str, ...] = ()  # kinds of records that say nothing of pixels, e.g. "tag"

    @property
    def empty(self) -> bool:
        """Whether nothing is annotated."""
        return not self.parts and self.ids is None and self.points is None


@dataclass(frozen=True)
class Source:
    """A label file, or folder of label files, that can be read."""

    path: Path
    images: Callable[[], Iterator[Annotations]]  # reads anew at each call; raises LabelError
    count: int | None = None  # of images; None: unknown until it is read
    labels: tuple[str, ...] | None = None  # classes in the order of their ids; None: those in use
    classes: Classes | None = None  # ids and colors, where the file fixes them
    keypoint_names: tuple[str, ...] | None = None  # None: those in use
    colors: Mapping[str, int] = field(default_factory=dict)  # 0xRRGGBB of labels, where known
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of positions in keypoint_names
    smaller_on_top: bool = False  # smaller regions cover larger ones; else later cover earlier ones
    notes: tuple[str, ...] = field(default=())  # what was left out, one line each


def is_background(label: str) -> bool:
    """Whether the label names what no region covers."""
    return label.casefold() in ("background", BACKGROUND)


def add_point(points: dict[str, Point], name: str, point: Point, origin: str) -> None:
    """Adds a keypoint of an image. Raises LabelError for the second of a name."""
    if name in points:
        raise LabelError(f"{origin} has two keypoints {name!r}; labels are of one object")
    points[name] = point


def bytes_of_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Reads a label file of at most `limit` bytes, 1 GiB by default. Raises LabelError."""
    try:
        with opened_regular_file(path) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > limit:
        raise LabelError(f"{path} is larger than {limit} bytes")
    return data.removeprefix(codecs.BOM_UTF8)
