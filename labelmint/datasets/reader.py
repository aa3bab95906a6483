"""Reader of complete data sets with several views per object.

Enters: a folder of `labelmint download`. Leave: `StoredDataset`, the content of its card, and one
`StoredView` per sample, whose pictures are decoded later by `stored_files`. A file that no writer
of this package can have written is an error that names it.
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
from labelmint.datasets.request import SHARDED, Request, checked_request
from labelmint.datasets.stored_files import (
    REDOWNLOAD_HINT,
    StoredFile,
    StoredSample,
    read_card,
)
from labelmint.datasets.tars import samples_of_tars
from labelmint.errors import LabelmintError
from labelmint.model import Camera, LabelClass
from labelmint.wire.sharding import END_OF_INDICES

# Exceptions of code that reads unchecked JSON as if it were well-formed.
JSON_ERRORS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_MAX_VIEWS = 1 << 16  # per object, as in servers
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class StoredDataset:
    """Content of a data set's card; sizes are (height, width) in pixels."""

    path: Path
    request: Request
    samples: int  # number of samples
    bundle_id: str
    licences: tuple[str, ...]
    outputs: tuple[str, ...]  # of every sample
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    classes: tuple[LabelClass, ...]
    keypoints: tuple[str, ...]


def dataset_from_folder(path: Path) -> StoredDataset:
    """Reads the card of a folder. Raises LabelmintError if it has no complete data set."""
    file = path / CARD
    try:
        card = json.loads(read_card(file))
        return _dataset_from_card(path, card)
    except FileNotFoundError as error:
        if (path / SCRATCH).exists():
            raise LabelmintError(
                f"{path} is not complete; run the same `labelmint download` again, which resumes"
            ) from error
        raise LabelmintError(
            f"{path} has no {CARD}; give a folder that `labelmint download` wrote"
        ) from error
    except OSError as error:
        raise LabelmintError(f"{file} cannot be read: {error.strerror or error}") from error
    except JSON_ERRORS as error:
        raise LabelmintError(
            f"{file} is damaged, or of another release of labelmint ({line_from_error(error)})"
        ) from error


def line_from_error(error: Exception) -> str:
    """The message of an error as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def _dataset_from_card(path: Path, card: Any) -> StoredDataset:
    """Raises one of JSON_ERRORS if no download can have written the card."""
    model, request = card["model"], checked_request(**card["request"])
    counts = [request.views_per_object, request.num_shards]
    if request.format in SHARDED:
        counts.append(request.samples_per_shard or 0)
    if min(_as(int, count) for count in counts) < 1 or request.views_per_object > _MAX_VIEWS:
        raise ValueError(f"one of {counts} is out of range")
    return StoredDataset(
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
    if type(value) is not kind:  # not isinstance: True is an int
        raise TypeError(f"{value!r:.40} is not of type {kind.__name__}")
    return value


@dataclass(frozen=True, eq=False)
class StoredView:
    """One view of an object: a sample of a data set."""

    index: int  # raw
    object: int  # number of the object: index div views per object
    view: int  # number of the view: index mod views per object
    camera: Camera
    keypoints: npt.NDArray[np.float32] | None  # [K, 3], as in Batch; None without keypoints
    image: StoredFile
    mask: StoredFile


def views_from_dataset(stored: StoredDataset) -> Generator[StoredView, None, None]:
    """All views of a data set in ascending order of the index.

    Raises:
        LabelmintError: the data set has no views, cameras or masks, or it is damaged.
    """
    _check_has_views(stored)
    path, request = stored.path, stored.request
    if request.format == "png":
        samples = samples_of_table(path, request, bool(stored.keypoints))
    else:
        samples = samples_of_tars(path, request, stored.samples)
    last, count = -1, 0
    while view := _next_view(samples, stored, count):
        if view.index <= last:
            raise LabelmintError(
                f"{path} has sample {view.index} after sample {last}; {REDOWNLOAD_HINT}"
            )
        last, count = view.index, count + 1
        yield view
    if count != stored.samples:
        raise LabelmintError(
            f"{path} has {count} samples, but its card says {stored.samples}; {REDOWNLOAD_HINT}"
        )


def _check_has_views(stored: StoredDataset) -> None:
    lacks = {  # what is missing, and the fix: whether it is missing
        "views: download with --views-per-object": stored.request.views_per_object < 2,
        "cameras: download from a bundle whose view bank has them, without --view drawn": (
            "camera" not in stored.outputs
        ),
        "masks: download from a bundle with a segmentation head": "mask" not in stored.outputs,
        "masks as PNG files: download with --format png or webdataset": (
            stored.request.format not in ("png", "webdataset")
        ),
    }
    for what, missing in lacks.items():
        if missing:
            raise LabelmintError(f"{stored.path} has no {what}")


def _next_view(
    samples: Iterator[StoredSample], stored: StoredDataset, before: int
) -> StoredView | None:
    try:
        found = next(samples, None)
        return None if found is None else _checked_view(found, stored)
    except OSError as error:
        raise LabelmintError(
            f"{error.filename or stored.path} cannot be read ({error.strerror or error}); "
            f"{REDOWNLOAD_HINT}"
        ) from error
    except JSON_ERRORS as error:
        raise LabelmintError(
            f"{stored.path} is damaged after {before} samples ({line_from_error(error)}); "
            f"{REDOWNLOAD_HINT}"
        ) from error


def _checked_view(found: StoredSample, stored: StoredDataset) -> StoredView:
    """Raises one of JSON_ERRORS if the fields are not those of a sample of this data set."""
    fields = found.fields
    index, view = fields["index"], fields["view"]
    if [type(n) for n in (index, view)] != [int, int] or not 0 <= index < END_OF_INDICES:
        raise ValueError(f"index {index!r} or view {view!r} is not a number in its range")
    if (fields["object"], view) != divmod(index, stored.request.views_per_object):
        raise ValueError(f"sample {index} is not view {view} of object {fields['object']}")
    camera = Camera(*(_number(fields["camera"][name]) for name in Camera._fields))
    if camera.distance <= 0 or camera.focal <= 0:
        raise ValueError(f"sample {index} has an impossible {camera}")
    points = None
    if stored.keypoints:
        rows = [[_number(value) for value in row] for row in fields["keypoints"]]
        points = np.array(rows, np.float32).reshape(len(stored.keypoints), 3)
    return StoredView(index, fields["object"], view, camera, points, found.image, found.mask)


def _number(value: Any) -> float:
    """A float32 number; NaN for None, which means unknown. Raises TypeError, ValueError."""
    number = math.nan if value is None else float(value)
    if abs(number) > _MAX_FLOAT32:
        raise ValueError(f"{value} is out of the range of float32")
    return number
