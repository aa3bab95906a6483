"""When a state is put on the disk: now and then, and when a run ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labelmint.datasets.folder import Folder, State

if TYPE_CHECKING:
    from typing_extensions import Self

COMMIT_S = 1.0  # work that the death of the process can cost, about
_SHARE = 20  # commits take at most one part in so many of the time


class Commits:
    """Holds the newest state; a context manager whose end commits it.

    After an OSError nothing is committed: the disk may be full, and an earlier state is as good.
    """

    def __init__(self, folder: Folder, state: State) -> None:
        """Commits at once. Raises OSError."""
        self._folder = folder
        self._due = 0.0
        self.note(state)

    def note(self, state: State) -> None:
        """Takes a newer state; what it counts has been written. Raises OSError."""
        self.state = state
        if time.monotonic() >= self._due:
            self._commit()

    def _commit(self) -> None:
        start = time.monotonic()
        self._folder.commit(self.state)
        end = time.monotonic()
        self._due = end + max(COMMIT_S, _SHARE * (end - start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not isinstance(error, OSError):
            self._commit()
