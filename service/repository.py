"""The models of this server by name: loads, replaces and unloads them while calls go on.

At most two models of one name are in memory: the one that is served, and the one before it until
its streams have ended.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bundle.errors import BundleError
from engines.errors import EngineError
from service.config import NamedBundle
from service.errors import LoadFailed, NotServing, UnknownModel
from service.file_changes import stamp_of_folder
from service.loading import TURN_S, Load, LoadTimeout, OpenModel
from service.metrics import Metrics
from service.models import ServedModel
from service.running import RunningModel
from service.tracing import Tracing

MAX_FORGOTTEN = 100  # names that are no longer listed, but still have metrics
State = Literal["READY", "LOADING", "UNAVAILABLE"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """State of one model name, for RepositoryIndex."""

    name: str
    bundle_id: str  # of the served bundle; empty if there is none
    state: State
    reason: str  # why it is not served, or why it could not be replaced


@dataclass
class _Entry:
    running: RunningModel | None = None
    loading: bool = False
    reason: str = ""
    load: Load | None = None  # the last one
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by each load and unload
    retiring: "asyncio.Task[None] | None" = None  # ends the previous model


@dataclass(frozen=True)
class RepositoryLimits:
    """Durations in seconds."""

    load_timeout_s: float  # of one load, which then counts as failed
    drain_s: float  # that streams of a replaced or unloaded model may go on


class Repository:
    """Owns every model from loading to closing."""

    def __init__(
        self,
        open_model: OpenModel,
        metrics: Metrics,
        tracing: Tracing,
        limits: RepositoryLimits,
        changed: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            open_model: opens a bundle and its engines; runs on another thread.
            metrics: metrics of the server.
            tracing: traces of the server.
            limits: durations of loading and of ending.
            changed: awaited after a model was loaded, unloaded or lost.
            failed: called with the exception when a bug ends a model's computation.
        """
        self._open, self._metrics, self._tracing = open_model, metrics, tracing
        self._limits = limits
        self._changed, self._failed = changed, failed
        self._entries: dict[str, _Entry] = {}
        self._turn = asyncio.Lock()  # loads take turns, see loading.TURN_S
        self._loads: set[Load] = set()  # under way
        # Calls of `load`, also those that wait, and the name of their model.
        self._loading: dict[asyncio.Task[None], str] = {}
        self._forgotten: dict[str, None] = {}  # names whose metrics are kept, the oldest first
        self._running: set[RunningModel] = set()  # served or draining
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> dict[str, ServedModel]:
        """Served models by name, sorted."""
        served = {n: e.running.model for n, e in self._entries.items() if e.running is not None}
        return dict(sorted(served.items()))

    @property
    def opening(self) -> bool:
        """Whether a bundle is being opened, which cannot be interrupted."""
        return any(not load.opened.done() for load in self._loads)

    def listed(self) -> list[Listed]:
        """All names that are or were served, or failed to load, sorted."""
        return [_listed(name, entry) for name, entry in sorted(self._entries.items())]

    def serve(self, models: Sequence[ServedModel]) -> None:
        """Serves models that are already open."""
        for model in models:
            self._metrics.count_load(model.name, True)
            self._put(self._entries.setdefault(model.name, _Entry()), model)

    async def load(self, named: NamedBundle) -> None:
        """Opens a bundle and serves it, replacing the model of that name.

        Raises LoadFailed; the old model then stays, unless an unload ended the load. Cancelling the
        call does not stop the loading.
        """
        task = self._spawn(self._load(named))
        self._loading[task] = named.name
        task.add_done_callback(self._loading.pop)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # it is the caller that was canceled
                raise
            raise LoadFailed(f"model {named.name} was unloaded while it was loaded") from None

    async def unload(self, name: str, forget: bool = False) -> None:
        """Refuses new calls for a model and drains its streams; `forget` also unlists the name.

        Loads of that name which are under way fail at once, so that no unload waits for one. The
        thread of such a load cannot be ended; its model is closed as soon as it is open.
        Raises UnknownModel.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownModel(f"model is {name!r}; this server has {', '.join(self._entries)}")
        for load in [load for load, loaded in self._loading.items() if loaded == name]:
            _log.warning("model %s is unloaded; the load of it that is under way ends", name)
            load.cancel()
        await asyncio.shield(self._spawn(self._unload(name, entry, forget)))

    async def close(self) -> None:
        """Closes all models at once; call it only when no call is open any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(running.close() for running in self._running))

    async def _load(self, named: NamedBundle) -> None:
        entry = self._entries.setdefault(named.name, _Entry())
        async with entry.changing:
            if self._entries.get(named.name) is not entry:  # an unload removed it meanwhile
                return await self._load(named)
            if entry.retiring is not None:
                await asyncio.wait([entry.retiring])
            entry.loading = True
            try:
                model = await self._opened(entry, named)
            except Exception as error:
                raise self._failure(entry, named, error) from error
            finally:
                entry.loading = False
            self._metrics.count_load(named.name, True)
            self._retire(entry, f"model {named.name} was replaced")
            self._put(entry, model)
            _log.info("model %s is served from %s", model.name, model.bundle.manifest.bundle_id)
        await self._changed()

    async def _opened(self, entry: _Entry, named: NamedBundle) -> ServedModel:
        def opened(named: NamedBundle) -> ServedModel:
            before = stamp_of_folder(named.path)
            model = self._open(named)
            if stamp_of_folder(named.path) == before:
                return model
            model.close()  # it may mix files of two bundles
            raise BundleError(f"{named.path} was changed while it was loaded; load it again")

        if entry.load is not None and not entry.load.opened.done():
            raise LoadTimeout(
                f"an earlier load of {named.path} has not ended yet; restart the server if it "
                "never does"
            )
        limit_s = self._limits.load_timeout_s
        opening: asyncio.Future[ServedModel] | None = None
        taken = False
        try:
            async with self._turn:
                _log.info("loading model %s from %s", named.name, named.path)
                load = entry.load = Load(opened, named)
                self._loads = {one for one in self._loads if not one.opened.done()} | {load}
                opening = asyncio.wrap_future(load.opened)
                # The more loads are under way beyond their turn, the shorter is the next turn: many
                # that never end together keep another waiting for under 2 * TURN_S.
                turn_s = min(TURN_S / 2 ** min(len(self._loads) - 1, 20), limit_s)
                await asyncio.wait([opening], timeout=turn_s)
            if not opening.done() and limit_s > TURN_S:
                await asyncio.wait([opening], timeout=TURN_S - turn_s)
                if not opening.done():
                    load.warn()
                    await asyncio.wait([opening], timeout=limit_s - TURN_S)
            if not opening.done():
                raise load.timeout(limit_s)
            taken = True
            return opening.result()
        finally:
            if opening is not None and not taken:  # also if it ended just when an unload came
                opening.cancel()
                load.abandon()

    def _failure(self, entry: _Entry, named: NamedBundle, error: Exception) -> LoadFailed:
        self._metrics.count_load(named.name, False)
        expected = isinstance(error, (BundleError, EngineError, LoadTimeout, OSError))
        entry.reason = "internal error; see the server's log"
        if expected:
            entry.reason = without_folders(str(error), named.path)
        state = "it is not served" if entry.running is None else "the old one stays"
        _log.error(
            "model %s cannot be loaded, %s: %s",
            named.name, state, error, exc_info=None if expected else error,
        )  # fmt: skip
        return LoadFailed(f"model {named.name} cannot be loaded, {state}: {entry.reason}")

    async def _unload(self, name: str, entry: _Entry, forget: bool) -> None:
        async with entry.changing:
            if entry.running is not None:
                _log.info("model %s is no longer served", name)
            self._retire(entry, f"model {name} was unloaded")
            entry.reason = "unloaded"
            if forget:
                self._entries.pop(name, None)
                self._forget_metrics(name)
        await self._changed()

    def _forget_metrics(self, name: str) -> None:
        """Drops metrics of the name that was forgotten first, if there are many such names."""
        self._forgotten.pop(name, None)
        self._forgotten[name] = None
        if len(self._forgotten) > MAX_FORGOTTEN:
            oldest = next(iter(self._forgotten))
            del self._forgotten[oldest]
            if oldest not in self._entries:  # else it came back
                self._metrics.forget_model(oldest)

    def _put(self, entry: _Entry, model: ServedModel) -> None:
        running = RunningModel(model, self._tracing, self._failed, self._on_lost)
        entry.running, entry.reason = running, ""
        self._running.add(entry.running)
        self._metrics.show_model(*_info(model))

    def _on_lost(self) -> None:
        self._spawn(self._notify())

    async def _notify(self) -> None:
        await self._changed()

    def _retire(self, entry: _Entry, why: str) -> None:
        """Removes the entry's model, if any, from new calls and ends it in the background."""
        running, entry.running = entry.running, None
        if running is None:
            return
        self._metrics.hide_model(*_info(running.model))
        refusal = NotServing(
            f"{why} on this server; resume from next_index, here or at another replica"
        )
        entry.retiring = self._spawn(self._end(running, refusal))

    async def _end(self, running: RunningModel, why: NotServing) -> None:
        await running.model.end(why, self._limits.drain_s)
        try:
            await running.close()
        except Exception as error:
            self._failed(error)
        self._running.discard(running)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def without_folders(message: str, folder: Path) -> str:
    """An error message without absolute paths, because callers must not learn about folders here.

    "/srv/car/mapping.onnx is missing" -> "mapping.onnx is missing"
    """
    for path in (folder.resolve(), folder.absolute(), folder):
        named = rf"(?<![\w./-]){re.escape(str(path))}(/|(?![\w.-]))"
        message = re.sub(named, lambda found: "" if found[1] else "the bundle", message)
    return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", message)


def _listed(name: str, entry: _Entry) -> Listed:
    if entry.running is not None and entry.running.model.lost:
        return Listed(name, "", "UNAVAILABLE", "its device failed; restart the server")
    if entry.running is not None:
        bundle_id = entry.running.model.bundle.manifest.bundle_id
        return Listed(name, bundle_id, "READY", entry.reason)
    return Listed(name, "", "LOADING" if entry.loading else "UNAVAILABLE", entry.reason)


def _info(model: ServedModel) -> tuple[str, str, str]:
    return model.name, model.bundle.manifest.bundle_id, model.engines[0].name
