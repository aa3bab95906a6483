"""What a format has to do, and the one that a request asks for."""

from __future__ import annotations

from typing import Any, Protocol

from labelmint.datasets.folder import Folder, State
from labelmint.datasets.png import PngWriter
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample
from labelmint.datasets.tars import TarWriter
from labelmint.errors import LabelmintError, MissingExtra
from labelmint.model import Model


class Writer(Protocol):
    """Samples to files, in ascending order of their indices.

    Opened after a state, a writer takes back whatever was written beyond it.
    """

    def encoded(self, sample: Sample) -> Any:
        """What `add` takes: the costly part, which several threads share."""

    def add(self, encoded: Any) -> None:
        """Writes the next sample; raises OSError."""

    def mark(self) -> dict[str, int]:
        """State.mark after the samples so far."""

    def finish(self) -> None:
        """Leaves the files as a reader wants them; raises OSError."""

    def close(self) -> None:
        """Lets go of open files; harmless after finish."""


class OpenWriter(Protocol):
    """How a format's writer is made."""

    def __call__(self, folder: Folder, request: Request, model: Model, state: State) -> Writer: ...


def writer_from_format(name: str) -> OpenWriter:
    """The writer of a format; raises MissingExtra."""
    if name == "webdataset":
        return TarWriter
    if name == "png":
        return PngWriter
    try:
        from labelmint.datasets.coco import CocoWriter
    except ImportError as error:
        raise MissingExtra(
            f"--format coco needs {error.name}; pip install 'labelmint[datasets]'"
        ) from error
    return CocoWriter


def check_model(request: Request, model: Model) -> None:
    """Raises LabelmintError when a model cannot give what the request is about."""
    if request.format == "coco" and not {"mask", "keypoints"} & set(model.outputs):
        raise LabelmintError(
            f"{model.name} has neither masks nor keypoints, so COCO has nothing to hold; use "
            "--format png or webdataset"
        )
    ranks = request.filter is not None or request.max_uncertainty is not None
    if ranks and "uncertainty" not in model.outputs:
        raise LabelmintError(
            f"{model.name} has no uncertainty to filter by; leave out --filter and "
            "--max-uncertainty"
        )
