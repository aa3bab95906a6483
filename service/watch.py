"""Serves the bundles of the --watch directory: loads new folders, unloads removed ones.

The directory is polled, because not every file system that holds bundles sends notifications.
"""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

from bundle.errors import BundleError
from bundle.manifest import MANIFEST
from bundle.open import open_bundle
from service.config import MODEL_NAME, NamedBundle
from service.errors import LoadFailed
from service.file_changes import FolderStamp, TooManyFiles, stamp_of_folder
from service.repository import Repository

MAX_WARNINGS = 100  # that are remembered, and logged in one poll
_log = logging.getLogger(__name__)


class Watch:
    """Keeps a repository's models equal to the bundle folders of a directory.

    A folder without a manifest is ignored. One whose files do not match its manifest is ignored
    until it is unchanged for two polls, because it may still be written; then loading it fails
    and is logged.
    """

    def __init__(self, directory: Path, repository: Repository, reserved: Collection[str]) -> None:
        """Folders with `reserved` names are ignored."""
        self._directory, self._repository, self._reserved = directory, repository, set(reserved)
        self._seen: dict[str, FolderStamp] = {}  # stamps at the last poll
        self._tried: dict[str, FolderStamp] = {}  # stamps when loading last succeeded or failed
        self._missing: set[str] = set()  # known folders that the last poll did not find
        self._warned: set[str] = set()  # warnings of the last poll, at most MAX_WARNINGS and one
        self._warnings: set[str] = set()  # those of the poll under way
        self._bug: BaseException | None = None  # of a load; ends the watch
        self._changing: dict[str, asyncio.Task[None]] = {}  # loads and unloads under way, by name

    async def run(self, interval_s: float) -> None:
        """Polls until cancelled; a load that takes long does not hold up the next poll."""
        while True:
            await asyncio.sleep(interval_s)
            await self._start()

    async def poll(self, patience_s: float | None = None) -> None:
        """Loads new and changed folders and unloads removed ones; failures are logged.

        Loads that take over `patience_s` go on alone, once any model is served.
        """
        await self._start()
        pending = set(self._changing.values())
        if pending:
            _, pending = await asyncio.wait(pending, timeout=patience_s)
        while pending and not self._repository.models:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _start(self) -> None:
        """Starts the loads and unloads that the directory asks for now."""
        if self._bug is not None:
            raise self._bug
        loop = asyncio.get_running_loop()
        self._warnings = set()
        try:
            found = await loop.run_in_executor(None, self._folders)
        except OSError as error:  # a network file system may be back at the next poll
            self._warnings = self._warned
            self._warn_once(f"{self._directory} cannot be read: {error.strerror}")
            return
        self._warned = self._warnings  # what is over is forgotten, and logged if it comes back
        gone = self._seen.keys() - found.keys()
        for name in sorted((gone & self._missing) - self._changing.keys()):
            self._change(name, self._remove(name))
        # A folder is removed only when two polls miss it: it may be replaced by two renames.
        self._missing = gone - self._missing
        for name, stamp in sorted(found.items()):
            if name in self._changing:
                continue  # the poll after its end compares the stamps
            unchanged, self._seen[name] = self._seen.get(name) == stamp, stamp
            if self._tried.get(name) != stamp:
                self._change(name, self._load(name, stamp, unchanged))

    def _change(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._changing[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._changing.pop(name))
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._bug = self._bug or task.exception()

    async def _load(self, name: str, stamp: FolderStamp, unchanged: bool) -> None:
        folder = self._directory / name
        loop = asyncio.get_running_loop()
        if not unchanged and not await loop.run_in_executor(None, _is_complete, folder):
            return
        self._tried[name] = stamp
        with contextlib.suppress(LoadFailed):  # the repository logged it
            await self._repository.load(NamedBundle(name, folder))

    async def _remove(self, name: str) -> None:
        del self._seen[name]
        if self._tried.pop(name, None) is not None:
            await self._repository.unload(name, forget=True)

    def _folders(self) -> dict[str, FolderStamp]:
        """Stamps of the folders that may be bundles. Raises OSError."""
        found = {}
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            if name.startswith("."):
                continue
            try:
                if not stat.S_ISREG(os.stat(self._directory / name / MANIFEST).st_mode):
                    continue
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:  # such as a link to itself: no matter of the other folders
                self._warn_once(f"{name!r} cannot be read: {error.strerror}")
                if name in self._seen:  # a model that is served stays
                    found[name] = self._seen[name]
                continue
            if not MODEL_NAME.fullmatch(name):
                self._warn_once(
                    f"{name!r} is not a model name: use letters, digits, _ . and -, at most 128"
                )
            elif name in self._reserved:
                self._warn_once(f"{name} is served by --bundle; its folder is ignored")
            else:
                try:
                    found[name] = stamp_of_folder(self._directory / name)
                except TooManyFiles as error:
                    self._warn_once(f"{error}; the folder is ignored as it is now")
                    if name in self._seen:  # a model that is served stays
                        found[name] = self._seen[name]
                except OSError:  # it is being replaced; the next poll finds the new folder
                    continue
        return found

    def _warn_once(self, message: str) -> None:
        """Logs a warning that was not part of the last poll, up to MAX_WARNINGS in one poll."""
        if len(self._warnings) >= MAX_WARNINGS and message not in self._warnings:
            message = f"{self._directory} has more such entries; {MAX_WARNINGS} are named here"
        if message not in self._warned | self._warnings:
            _log.warning("--watch: %s", message)
        self._warnings.add(message)


def _is_complete(folder: Path) -> bool:
    """Whether the manifest can be read and every file has its size; loading checks the hashes."""
    try:
        open_bundle(folder, verify=False)
    except BundleError:
        return False
    return True
