"""Folder of a data set: its lock, the progress of its download, and whether it is complete.

During a download the subfolder `.labelmint` has `state.json` (the request and a `DownloadState`,
replaced atomically) and unfinished files. `card.json` is written last, after which `.labelmint` is
removed: a folder with `card.json` is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from labelmint.datasets.request import Request, difference
from labelmint.datasets.stored_files import read_card
from labelmint.errors import LabelmintError, WrongFolder

if TYPE_CHECKING:
    from typing_extensions import Self

CARD, SCRATCH = "card.json", ".labelmint"
COMMIT_S = 1.0  # minimum seconds between commits: about the work that a killed process loses
_COMMIT_PAUSE = 20  # a commit that took t seconds is followed by at least 20 t without one
_STATE, _LOCK = "state.json", "lock"
_LOCK_TRIES = 100  # more than downloads that can end at the same moment


@dataclass(frozen=True)
class DownloadState:
    """Progress of a download; all that it counts is on disk."""

    model: str  # name of the served model
    bundle_id: str  # bundle of all samples
    threshold: float | None  # highest uncertainty of a kept sample; None: no limit
    next_index: int  # first raw index that is neither written nor discarded
    scored: int = 0  # number of scores on disk, for a filter that ranks
    kept: int = 0  # number of samples written
    mark: dict[str, int] = field(default_factory=dict)  # position in the writer's files
    class_pixels: dict[int, int] = field(default_factory=dict)  # pixels of all masks by class id
    class_images: dict[int, int] = field(default_factory=dict)  # masks with it, by class id
    learned_id: str = ""  # of what all samples depend on besides; empty without any


class Folder:
    """Folder of a data set; a context manager that locks it against other downloads."""

    def __init__(self, path: Path, request: Request) -> None:
        """Reads the state of the folder, which need not exist.

        Raises:
            WrongFolder: the folder has other files, is damaged, or belongs to another request.
            OSError: the folder cannot be read.
        """
        self.path, self.scratch = path, path / SCRATCH
        self._request = request
        self.card: dict[str, Any] | None  # content of card.json; None: not complete
        self.state: DownloadState | None  # last commit; None: not started
        self.card, self.state = self._read()

    def commit(self, state: DownloadState) -> None:
        """Writes state.json, after all that the state counts has reached the disk."""
        os.sync()  # fsync of thousands of small files would take longer than writing them
        request = dataclasses.asdict(dataclasses.replace(self._request, model=state.model))
        stored = {"request": request, "state": dataclasses.asdict(state)}
        replace_file(self.scratch / _STATE, json.dumps(stored, indent=1))
        self.state = state

    def finish(self, card: dict[str, Any]) -> None:
        """Writes card.json, which makes the folder complete."""
        os.sync()
        replace_file(self.path / CARD, json.dumps(card, indent=1) + "\n")
        self.card = card

    def clear(self) -> None:
        """Removes the scratch folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        for _ in range(_LOCK_TRIES):
            self._lock = self._opened_lock()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # till the process ends
                if self._holds():
                    self.card, self.state = self._read()  # again: another may have written
                    return self
            except BlockingIOError:
                self._lock.close()
                break
            except BaseException:
                self._lock.close()
                raise
            self._lock.close()  # another download has just removed it
        raise LabelmintError(f"{self.path} is locked by another download; wait for its end")

    def __exit__(self, *ended: object) -> None:
        if self.card is None and self.state is None:  # it was refused before it began
            with contextlib.suppress(OSError):  # such as of a folder with other files
                (self.scratch / _LOCK).unlink()
                for folder in self._made:
                    folder.rmdir()
        self._lock.close()

    def _opened_lock(self) -> TextIO:
        """The file of the lock, where another download may be removing its folder just now."""
        for _ in range(_LOCK_TRIES):
            try:
                folders = (self.scratch, *self.scratch.parents)
                self._made = [folder for folder in folders if not folder.exists()]
                self.scratch.mkdir(parents=True, exist_ok=True)
                return (self.scratch / _LOCK).open("w")
            except (FileExistsError, FileNotFoundError) as error:
                failed = error
        raise failed

    def _holds(self) -> bool:
        """Whether the file that is locked is still the folder's, not one that was removed."""
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.scratch / _LOCK))
        except FileNotFoundError:
            return False

    def _read(self) -> tuple[dict[str, Any] | None, DownloadState | None]:
        """The card, or else the state. Another download may be writing: its state is there before
        its other files, and its card before the state goes."""
        found: set[str] = set()
        with contextlib.suppress(FileNotFoundError):  # also where it is removed just now
            found = {entry.name for entry in self.path.iterdir()}
        card_file, state_file = self.path / CARD, self.scratch / _STATE
        source = card_file if CARD in found else state_file
        if source is state_file and not state_file.exists():
            others = found - {SCRATCH}
            if not others:
                return None, None
            if state_file.exists() or card_file.exists():
                return self._read()
            raise WrongFolder(
                f"{self.path} has other files, such as {min(others)}; give a new or empty folder"
            )
        try:
            stored = json.loads(read_card(source))
            other = difference(dict(stored["request"]), self._request)
            card = _checked_card(stored) if source is card_file else None
            state = _state_from_json(stored["state"]) if source is state_file else None
        except FileNotFoundError:
            if source is state_file and card_file.exists():
                return self._read()
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WrongFolder(
                f"{source} is damaged, or not from labelmint ({error}); give another --out"
            ) from error
        if other:
            raise WrongFolder(
                f"{self.path} was started with {other}; give the same options, or another --out"
            )
        return card, state


class Commits:
    """Commits of a download's state: at most about one per second, and one at the end.

    A context manager. After an OSError the last state is not committed, because the disk may be
    full; the download then resumes from the commit before.
    """

    def __init__(self, folder: Folder, state: DownloadState) -> None:
        """Commits this state at once. Raises OSError."""
        self._folder = folder
        self._due = 0.0
        self.note(state)

    def note(self, state: DownloadState) -> None:
        """Takes a newer state, whose samples are written, and commits it if due. Raises OSError."""
        self.state = state
        if time.monotonic() >= self._due:
            self._commit()

    def _commit(self) -> None:
        start = time.monotonic()
        self._folder.commit(self.state)
        end = time.monotonic()
        self._due = end + max(COMMIT_S, _COMMIT_PAUSE * (end - start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not isinstance(error, OSError):
            self._commit()


def _checked_card(stored: dict[str, Any]) -> dict[str, Any]:
    """The card, if it has the numbers of samples; raises KeyError, TypeError."""
    for name in ("kept", "examined"):
        if type(stored["samples"][name]) is not int:
            raise TypeError(f"{name} is not a number")
    return stored


def _state_from_json(stored: dict[str, Any]) -> DownloadState:
    """The state in state.json; raises ValueError, KeyError, TypeError, AttributeError."""
    by_class = {
        name: {int(label): count for label, count in stored.get(name, {}).items()}
        for name in ("class_pixels", "class_images")
    }
    state = DownloadState(**{**stored, **by_class})
    counts = [state.next_index, state.scored, state.kept, *state.mark.values()]
    counts += [count for found in by_class.values() for count in found.values()]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a count is not an integer from 0 up")
    names = state.model, state.bundle_id, state.learned_id
    if not all(isinstance(name, str) for name in names):
        raise TypeError("model, bundle_id or learned_id is not a string")
    return state


def replace_file(path: Path, text: str) -> None:
    """Writes a text file atomically: a killed process leaves the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
