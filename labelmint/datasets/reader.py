"""A complete data set, read back: what its card says, and the views of its objects one by one.

Enters: a folder. Leave: `Stored`, and entries whose pictures wait in their files. Anything that no
writer of this package left there is an error that says where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from labelmint.datasets.folder import CARD, SCRATCH
from labelmint.datasets.png import samples_of_table
from labelmint.datasets.request import MAX_INDEX, Request, checked_request
from labelmint.datasets.stored_files import AGAIN, Found, Piece
from labelmint.datasets.tars import samples_of_tars
from labelmint.errors import LabelmintError
from labelmint.model import Camera, LabelClass

# What reading JSON that nobody checked can raise.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_MAX_VIEWS = 1 << 16  # of an object that a server gives
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Stored:
    """A data set and what made it; extents are (height, width) in pixels."""

    path: Path
    request: Request
    samples: int
    bundle_id: str
    licences: tuple[str, ...]
    outputs: tuple[str, ...]  # of every sample
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    classes: tuple[LabelClass, ...]
    keypoints: tuple[str, ...]


def stored_from_folder(path: Path) -> Stored:
    """The data set of a folder; raises LabelmintError where there is none, or no whole one."""
    file = path / CARD
    try:
        card = json.loads(file.read_bytes())
        return _stored_from_card(path, card)
    except FileNotFoundError as error:
        if (path / SCRATCH).exists():
            raise LabelmintError(
                f"{path} is not complete; the same `labelmint download` goes on with it"
            ) from error
        raise LabelmintError(
            f"{path} has no {CARD}; give a folder that `labelmint download` wrote"
        ) from error
    except OSError as error:
        raise LabelmintError(f"{file} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise LabelmintError(
            f"{file} is damaged, or of another release of labelmint ({words_of(error)})"
        ) from error


def words_of(error: Exception) -> str:
    """An error's message, or as much of it as one line holds."""
    return " ".join(str(error).split())[:200]


def _stored_from_card(path: Path, card: Any) -> Stored:
    """Raises what DAMAGE lists for what no download wrote."""
    model, request = card["model"], checked_request(**card["request"])
    counts = [request.views_per_object, request.num_shards]
    if request.format == "webdataset":
        counts.append(request.samples_per_shard or 0)
    if min(_as(int, count) for count in counts) < 1 or request.views_per_object > _MAX_VIEWS:
        raise ValueError(f"one of {counts} is out of range")
    return Stored(
        path=path,
        request=request,
        samples=_as(int, card["samples"]["kept"]),
        bundle_id=_as(str, card["bundle_id"]),
        licences=_names(card["licences"]),
        outputs=_names(card["outputs"]),
        image_size=_extent(model["image_size"]),
        label_size=_extent(model["label_size"]),
        classes=tuple(_class(label) for label in _as(list, card["classes"])),
        keypoints=_names(card["keypoints"]),
    )


def _class(label: Any) -> LabelClass:
    red, green, blue = (_as(int, value) for value in label["color"])
    return LabelClass(_as(int, label["id"]), _as(str, label["name"]), (red, green, blue))


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_as(str, name) for name in _as(list, value))


def _extent(value: Any) -> tuple[int, int]:
    height, width = (_as(int, pixels) for pixels in value)
    return height, width


def _as(kind: type[_Kind], value: Any) -> _Kind:
    if type(value) is not kind:  # True is no number
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


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
