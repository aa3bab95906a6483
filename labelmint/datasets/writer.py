"""Interface of the writers, one per file format, and the choice of one for a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from labelmint.datasets.fiftyone import FiftyOneWriter
from labelmint.datasets.folder import DownloadState, Folder
from labelmint.datasets.png import PngWriter
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample
from labelmint.datasets.tars import TarWriter
from labelmint.datasets.tasks import TaskWriter
from labelmint.datasets.yolo import YoloWriter
from labelmint.errors import LabelmintError, MissingExtra
from labelmint.extras import install_from_extra
from labelmint.model import Model

_NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]").search


class Writer(Protocol):
    """Writes samples to files, in ascending order of the index.

    Opening a writer at a state removes what was written after it.
    """

    def encoded(self, sample: Sample) -> Any:
        """The argument of `add`: compressed files. Slow, so several threads may call it."""

    def add(self, encoded: Any) -> None:
        """Writes the next sample; raises OSError."""

    def mark(self) -> dict[str, int]:
        """DownloadState.mark after the samples written so far."""

    def finish(self) -> None:
        """Completes the files after the last sample; raises OSError."""

    def close(self) -> None:
        """Closes open files; may be called after `finish`."""


class OpenWriter(Protocol):
    """Constructor of a writer, opened at a state."""

    def __call__(
        self, folder: Folder, request: Request, model: Model, state: DownloadState
    ) -> Writer: ...


def writer_from_format(name: str) -> OpenWriter:
    """The writer of a format: an element of request.FORMATS. Raises MissingExtra."""
    if name == "webdataset":
        return TarWriter
    if name == "png":
        return PngWriter
    if name in ("yolo-seg", "yolo-pose"):
        return YoloWriter
    if name in ("cvat", "label-studio"):
        return TaskWriter
    if name == "fiftyone":
        return FiftyOneWriter
    if name == "hf":
        with _extra(name, "hf"):
            from labelmint.datasets.parquet import ParquetWriter
        return ParquetWriter
    with _extra(name, "datasets"):
        from labelmint.datasets.coco import CocoWriter
    return CocoWriter


@contextmanager
def _extra(name: str, extra: str) -> Iterator[None]:
    """Raises MissingExtra for a package of an extra that a format needs and that is missing."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"--format {name} needs {error.name}: {install_from_extra(extra)}"
        ) from error


def check_model(request: Request, model: Model) -> None:
    """Raises LabelmintError if a model lacks the outputs that a request needs."""
    labelled = ("coco", "cvat", "label-studio")
    if request.format in labelled and not {"mask", "keypoints"} & set(model.outputs):
        raise LabelmintError(
            f"{model.name} has neither masks nor keypoints to write as annotations of "
            f"--format {request.format}; use --format png or webdataset"
        )
    needed = {"yolo-seg": "mask", "yolo-pose": "keypoints"}.get(request.format, "image")
    if needed not in model.outputs:
        raise LabelmintError(
            f"{model.name} has no {needed} output, which --format {request.format} is of; use "
            "--format png or webdataset"
        )
    names = (*(label.name for label in model.classes), *model.keypoints)
    if request.format in ("cvat", "label-studio") and (unfit := list(filter(_NOT_XML, names))):
        raise LabelmintError(
            f"{model.name} has the name {unfit[0]!r}, with a character that XML has not and so "
            f"--format {request.format}; rename it, or use --format png or webdataset"
        )
    if request.filter_report and "mask" not in model.outputs:
        raise LabelmintError(
            f"{model.name} has no masks, whose classes --filter-report counts; leave it out"
        )
    ranks = request.filter is not None or request.max_uncertainty is not None
    if ranks and "uncertainty" not in model.outputs:
        raise LabelmintError(
            f"{model.name} has no uncertainty to filter by; leave out --filter and "
            "--max-uncertainty"
        )
