"""How much work a project has had, and how good its labels were after it.

    DIR/progress.json   seconds of work, and an estimate of mean IoU for each number of images

Work is time with activity: the time between two strokes, clicks or images opened counts while it
is under IDLE_S. It cannot be made again, so it is not in DIR/studio.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import field

from bundle.files import read_regular_file
from bundle.records import Strict
from checkpoints import write_text

PROGRESS = "progress.json"
IDLE_S = 60.0  # after which a person is taken to be away
SAVED_EVERY_S = 20.0
MAX_ESTIMATES, MAX_BYTES = 512, 16 << 20
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Estimate(Strict, frozen=True):
    """IoU on images that were left out of the training."""

    images: Annotated[int, msgspec.Meta(ge=1)]  # labeled ones
    folds: Annotated[int, msgspec.Meta(ge=1)]  # as many as images: each was left out alone
    seconds: Amount  # of work, when the training began
    miou: Share
    iou: dict[str, Share | None]  # by class name; None: no labeled pixel


class Progress(Strict, frozen=True):
    """Content of progress.json."""

    seconds: Amount = 0.0
    estimates: Annotated[list[Estimate], msgspec.Meta(max_length=MAX_ESTIMATES)] = field(
        default_factory=list
    )


class ProgressLog:
    """Counts work and keeps estimates. Methods are thread-safe."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = folder / PROGRESS, clock
        self._lock = threading.Lock()
        self._last: float | None = None  # activity
        self._saved = clock()
        self._known = self._stored()

    @property
    def seconds(self) -> float:
        """Work so far."""
        return self._known.seconds

    @property
    def estimates(self) -> list[Estimate]:
        """By number of images, ascending."""
        return self._known.estimates

    def note_activity(self) -> None:
        """Counts the time since the last activity, unless the person was away. Raises OSError."""
        with self._lock:
            now, last = self._clock(), self._last
            self._last = now
            if last is not None and now - last <= IDLE_S:
                seconds = self._known.seconds + now - last
                self._known = msgspec.structs.replace(self._known, seconds=seconds)
            if now - self._saved > SAVED_EVERY_S:
                self._save()

    def add(self, estimate: Estimate) -> None:
        """Keeps an estimate, in place of an earlier one of as many images. Raises OSError."""
        with self._lock:
            others = [one for one in self._known.estimates if one.images != estimate.images]
            kept = sorted([*others, estimate], key=lambda one: one.images)[-MAX_ESTIMATES:]
            self._known = msgspec.structs.replace(self._known, estimates=kept)
            self._save()

    def save(self) -> None:
        """Writes what is not yet on disk. Raises OSError."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        if self._known != Progress():
            write_text(self._path, msgspec.json.encode(self._known).decode() + "\n")
        self._saved = self._clock()

    def _stored(self) -> Progress:
        """That of an earlier session; a file that is none counts as no work."""
        with suppress(OSError, msgspec.DecodeError, ValueError, RecursionError):
            data = read_regular_file(self._path, MAX_BYTES)
            return msgspec.json.decode(data, type=Progress)
        return Progress()
