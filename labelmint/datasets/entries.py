"""The views of objects in a complete data set, read back one by one.

Enters: `Stored`. Leave: entries, whose pictures wait in their files. What no writer of this room
left there is an error that says where.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.datasets.pieces import AGAIN, Found, Piece
from labelmint.datasets.png import samples_of_table
from labelmint.datasets.request import MAX_INDEX
from labelmint.datasets.stored import DAMAGE, Stored, words_of
from labelmint.datasets.tars import samples_of_tars
from labelmint.errors import LabelmintError
from labelmint.model import Camera

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Entry:
    """A view of an object."""

    index: int  # raw
    object: int
    view: int  # code of the view bank
    camera: Camera
    keypoints: npt.NDArray[np.float32] | None  # [K, 3], as in Batch, where there are any
    image: Piece
    mask: Piece


def entries_from_stored(stored: Stored) -> Generator[Entry, None, None]:
    """Every view, ascending by index.

    Raises LabelmintError for a data set without views, cameras or masks, and for one that is not as
    it was written.
    """
    _check_kind(stored)
    path, request = stored.path, stored.request
    if request.format == "png":
        samples = samples_of_table(path, request, bool(stored.keypoints))
    else:
        samples = samples_of_tars(path, request, stored.samples)
    last, count = -1, 0
    while entry := _next_entry(samples, stored, count):
        if entry.index <= last:
            raise LabelmintError(f"{path} has sample {entry.index} after sample {last}; {AGAIN}")
        last, count = entry.index, count + 1
        yield entry
    if count != stored.samples:
        raise LabelmintError(
            f"{path} has {count} samples of the {stored.samples} that its card tells; {AGAIN}"
        )


def _check_kind(stored: Stored) -> None:
    has_not = {
        "views: download with --views-per-object": stored.request.views_per_object < 2,
        "cameras: download from a bundle whose view bank has them, without --view drawn": (
            "camera" not in stored.outputs
        ),
        "masks: download from a bundle with a segmentation head": "mask" not in stored.outputs,
        "masks but COCO's outlines: download with --format png or webdataset": (
            stored.request.format not in ("png", "webdataset")
        ),
    }
    for what, true in has_not.items():
        if true:
            raise LabelmintError(f"{stored.path} has no {what}")


def _next_entry(samples: Iterator[Found], stored: Stored, before: int) -> Entry | None:
    try:
        found = next(samples, None)
        return None if found is None else _entry(found, stored)
    except OSError as error:
        raise LabelmintError(
            f"{error.filename or stored.path} cannot be read ({error.strerror or error}); {AGAIN}"
        ) from error
    except DAMAGE as error:
        raise LabelmintError(
            f"{stored.path} is damaged after {before} samples ({words_of(error)}); {AGAIN}"
        ) from error


def _entry(found: Found, stored: Stored) -> Entry:
    """Raises what DAMAGE lists."""
    fields = found.fields
    index, view = fields["index"], fields["view"]
    if [type(n) for n in (index, view)] != [int, int] or not 0 <= index < MAX_INDEX:
        raise ValueError(f"index {index!r} and view {view!r} are not those of a sample")
    if (fields["object"], view) != divmod(index, stored.request.views_per_object):
        raise ValueError(f"sample {index} is said to be view {view} of object {fields['object']}")
    camera = Camera(*(_number(fields["camera"][name]) for name in Camera._fields))
    if camera.distance <= 0 or camera.focal <= 0:
        raise ValueError(f"sample {index} has a {camera}")
    points = None
    if stored.keypoints:
        rows = [[_number(value) for value in row] for row in fields["keypoints"]]
        points = np.array(rows, np.float32).reshape(len(stored.keypoints), 3)
    return Entry(index, fields["object"], view, camera, points, found.image, found.mask)


def _number(value: Any) -> float:
    """NaN for None, which is not known; raises TypeError, ValueError."""
    number = math.nan if value is None else float(value)
    if abs(number) > _LARGEST:
        raise ValueError(f"{value} is no float32")
    return number
