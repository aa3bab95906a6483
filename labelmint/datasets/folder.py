"""A data set's folder: who may write in it, how far it is, and whether it is complete.

While a data set is made, the folder `.labelmint` in it has `state.json` (the request and a
`State`, replaced as a whole) and unfinished files. `card.json` comes last, and then `.labelmint`
goes: a folder with a card is complete.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmint.datasets.request import Request, difference
from labelmint.errors import LabelmintError

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


if TYPE_CHECKING:
    from typing_extensions import Self

CARD, SCRATCH = "card.json", ".labelmint"
_STATE = "state.json"


@dataclass(frozen=True)
class State:
    """How far a data set is; everything before it is on the disk."""

    model: str  # name under which it was found
    bundle_id: str  # that all samples come from
    threshold: float | None  # what keep_fraction means for it, so that it stays the same
    next_index: int  # first raw index not yet looked at, of those that are streamed in order
    scored: int = 0  # samples that the filter has scores of
    kept: int = 0  # samples written
    mark: dict[str, int] = field(default_factory=dict)  # the writer's own position
    class_pixels: dict[int, int] = field(default_factory=dict)  # in all masks so far, by id


class Folder:
    """The owner of a data set's folder; a context manager that keeps others out."""

    def __init__(self, path: Path, request: Request) -> None:
        """Looks at the folder; raises LabelmintError when it is not for this request, OSError."""
        self.path, self.scratch = path, path / SCRATCH
        self._request = request
        self.card: dict[str, Any] | None  # of a complete folder
        self.state: State | None  # what an earlier run reached
        self.card, self.state = self._look()

    def commit(self, state: State) -> None:
        """Remembers a state, once everything it counts is on the disk."""
        os.sync()  # thousands of small files: one by one would take longer than making them
        request = dataclasses.asdict(dataclasses.replace(self._request, model=state.model))
        stored = {"request": request, "state": dataclasses.asdict(state)}
        replace_file(self.scratch / _STATE, json.dumps(stored, indent=1))
        self.state = state

    def finish(self, card: dict[str, Any]) -> None:
        """Makes the folder complete, once everything else in it is written."""
        os.sync()
        replace_file(self.path / CARD, json.dumps(card, indent=1) + "\n")
        self.card = card

    def clear(self) -> None:
        """Removes what only an incomplete folder has."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._lock = (self.scratch / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
            self.card, self.state = self._look()  # nobody else writes from here on
        except BlockingIOError as error:
            self._lock.close()
            raise LabelmintError(f"{self.path} is being written by another download") from error
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *ended: object) -> None:
        self._lock.close()

    def _look(self) -> tuple[dict[str, Any] | None, State | None]:
        found = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        card_file, state_file = self.path / CARD, self.scratch / _STATE
        if CARD not in found and not state_file.exists():
            strangers = found - {SCRATCH}
            if strangers:
                raise LabelmintError(
                    f"{self.path} has other files, such as {min(strangers)}; give a new or empty "
                    "folder"
                )
            return None, None
        source = card_file if CARD in found else state_file
        try:
            stored = json.loads(source.read_text("utf-8"))
            other = difference(dict(stored["request"]), self._request)
            card = _checked_card(stored) if source is card_file else None
            state = _state_from_json(stored["state"]) if source is state_file else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelmintError(
                f"{source} is damaged, or none of labelmint's ({error}); give another --out"
            ) from error
        if other:
            raise LabelmintError(
                f"{self.path} was begun with {other}; give the same options, or another --out"
            )
        return card, state


def _checked_card(stored: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError, TypeError for a card that does not say what came of the request."""
    for name in ("kept", "examined"):
        if type(stored["samples"][name]) is not int:
            raise TypeError(f"{name} is not a number")
    return stored


def _state_from_json(stored: dict[str, Any]) -> State:
    """Raises ValueError, KeyError, TypeError, AttributeError for what is no state."""
    pixels = {int(label): count for label, count in stored["class_pixels"].items()}
    state = State(**{**stored, "class_pixels": pixels})
    counts = (state.next_index, state.scored, state.kept, *state.mark.values(), *pixels.values())
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a count is not one")
    if not isinstance(state.model, str) or not isinstance(state.bundle_id, str):
        raise TypeError("a name is not one")
    return state


def replace_file(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
