"""A complete data set, read back: what its card says.

Enters: a folder. Leaves: `Stored`; the samples themselves are `entries`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labelmint.datasets.folder import CARD, SCRATCH
from labelmint.datasets.request import Request, checked_request
from labelmint.errors import LabelmintError
from labelmint.model import LabelClass

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
