"""A directory of bundles -> loads and unloads: what appears is served, what goes is not.

The directory is looked at every few seconds, because notifications do not come from every file
system that bundles are mounted from.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

from service.config import NamedBundle
from service.errors import LoadFailed
from service.folder import MODEL_NAME, FolderStamp, has_manifest, is_whole, stamp_of
from service.repository import Repository

_log = logging.getLogger(__name__)


class Watch:
    """Keeps a repository as the folders of a directory are.

    A folder without a manifest is left alone. One whose files do not fit its manifest is left
    alone until it stays the same for two looks: it may still be written.
    """

    def __init__(self, directory: Path, repository: Repository, reserved: Collection[str]) -> None:
        """Models of `reserved` names are not the directory's."""
        self._directory, self._repository, self._reserved = directory, repository, set(reserved)
        self._seen: dict[str, FolderStamp] = {}  # at the last look
        self._tried: dict[str, FolderStamp] = {}  # when it was last loaded, or failed to
        self._missing: set[str] = set()  # at the last look
        self._complaints: set[str] = set()

    async def run(self, interval_s: float) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(interval_s)
            await self.look()

    async def look(self) -> None:
        """Loads what is new or changed and unloads what is gone; failures are logged."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, self._folders)
        except OSError as error:  # a network's file system may be back at the next look
            self._complain(f"{self._directory} cannot be read: {error.strerror}")
            return
        gone = self._seen.keys() - found.keys()
        for name in sorted(gone & self._missing):
            await self._remove(name)
        self._missing = gone - self._missing  # two renames may replace a folder
        for name, stamp in sorted(found.items()):
            await self._follow(name, stamp)

    async def _follow(self, name: str, stamp: FolderStamp) -> None:
        settled, self._seen[name] = self._seen.get(name) == stamp, stamp
        if self._tried.get(name) == stamp:
            return
        folder = self._directory / name
        loop = asyncio.get_running_loop()
        if not settled and not await loop.run_in_executor(None, is_whole, folder):
            return
        self._tried[name] = stamp
        with contextlib.suppress(LoadFailed):  # it was logged
            await self._repository.load(NamedBundle(name, folder))

    async def _remove(self, name: str) -> None:
        del self._seen[name]
        if self._tried.pop(name, None) is not None:
            await self._repository.unload(name, forget=True)

    def _folders(self) -> dict[str, FolderStamp]:
        """Those that may be bundles. Raises OSError."""
        found = {}
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        for name in names:
            if name.startswith(".") or not has_manifest(self._directory / name):
                continue
            if not MODEL_NAME.fullmatch(name):
                self._complain(f"{name!r} is no name of a model: letters, digits, _ . and -")
            elif name in self._reserved:
                self._complain(f"{name} is served by --bundle, its folder is left alone")
            else:
                try:
                    found[name] = stamp_of(self._directory / name)
                except OSError:  # it is being replaced; the next look sees what by
                    continue
        return found

    def _complain(self, message: str) -> None:
        """Once: it would come again every few seconds."""
        if message not in self._complaints:
            self._complaints.add(message)
            _log.warning("--watch: %s", message)
