"""The models of this server by name: loaded, swapped and unloaded while calls go on.

Of one name there are at most two in memory: the one that is served, and for the time of its
drain the one before it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bundle.errors import BundleError
from engines.errors import EngineError
from service.config import NamedBundle
from service.errors import LoadFailed, NotServing, UnknownModel
from service.folder import stamp_of, without_folders
from service.loading import OpenModel
from service.metrics import Metrics
from service.models import ServedModel
from service.running import RunningModel
from service.tracing import Tracing

State = Literal["READY", "LOADING", "UNAVAILABLE"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """What there is to tell of a name."""

    name: str
    bundle_id: str  # of what is served, or empty
    state: State
    reason: str  # why it is not served, or why the last attempt to replace it failed


@dataclass
class _Entry:
    running: RunningModel | None = None
    loading: bool = False
    reason: str = ""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change at a time
    retiring: "asyncio.Task[None] | None" = None  # the model before, while it drains


class Repository:
    """Owns every model from its loading to its end."""

    def __init__(
        self,
        open_model: OpenModel,
        metrics: Metrics,
        tracing: Tracing,
        drain_s: float,
        changed: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`changed` is awaited whenever a name is served or is no more; `failed` hears of bugs."""
        self._open, self._metrics, self._tracing = open_model, metrics, tracing
        self._drain_s = drain_s
        self._changed, self._failed = changed, failed
        self._entries: dict[str, _Entry] = {}
        self._opening = asyncio.Lock()  # one bundle at a time, whatever its name
        self._running: set[RunningModel] = set()  # those served, and those that drain
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> dict[str, ServedModel]:
        """What is served, by name, in the order of the names."""
        served = {n: e.running.model for n, e in self._entries.items() if e.running is not None}
        return dict(sorted(served.items()))

    @property
    def opening(self) -> bool:
        """Whether a bundle is being opened, which nothing can interrupt."""
        return self._opening.locked()

    def listed(self) -> list[Listed]:
        """Every name there is or was, sorted."""
        return [_listed(name, entry) for name, entry in sorted(self._entries.items())]

    def serve(self, models: Sequence[ServedModel]) -> None:
        """Takes models that are open already."""
        for model in models:
            self._metrics.count_load(model.name, True)
            self._put(self._entries.setdefault(model.name, _Entry()), model)

    async def load(self, named: NamedBundle) -> None:
        """Opens a bundle and serves it, in place of the one of that name.

        Raises LoadFailed, with the old one serving on. A caller that leaves does not stop it.
        """
        await asyncio.shield(self._spawn(self._load(named)))

    async def unload(self, name: str, forget: bool = False) -> None:
        """New calls do not find it from now on; its streams drain. Raises UnknownModel."""
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownModel(f"model is {name!r}; this server has {', '.join(self._entries)}")
        await asyncio.shield(self._spawn(self._unload(name, entry, forget)))

    async def close(self) -> None:
        """Ends everything at once; nobody may be calling any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(running.close() for running in self._running))

    async def _load(self, named: NamedBundle) -> None:
        entry = self._entries.setdefault(named.name, _Entry())
        async with entry.changing:
            if self._entries.get(named.name) is not entry:  # forgotten meanwhile
                return await self._load(named)
            if entry.retiring is not None:
                await asyncio.wait([entry.retiring])
            entry.loading = True
            try:
                async with self._opening:
                    model = await self._opened(named)
            except Exception as error:
                raise self._failure(entry, named, error) from error
            finally:
                entry.loading = False
            self._metrics.count_load(named.name, True)
            self._retire(entry, f"model {named.name} was replaced")
            self._put(entry, model)
            _log.info("model %s is served from %s", model.name, model.bundle.manifest.bundle_id)
        await self._changed()

    async def _opened(self, named: NamedBundle) -> ServedModel:
        def opened() -> ServedModel:
            before = stamp_of(named.path)
            model = self._open(named)
            if stamp_of(named.path) == before:
                return model
            model.close()  # it may be half of one bundle and half of another
            raise BundleError(f"{named.path} was changed while it was loaded; load it again")

        return await asyncio.get_running_loop().run_in_executor(None, opened)

    def _failure(self, entry: _Entry, named: NamedBundle, error: Exception) -> LoadFailed:
        self._metrics.count_load(named.name, False)
        known = isinstance(error, (BundleError, EngineError, OSError))
        entry.reason = "the server failed at it; its log says why"
        if known:
            entry.reason = without_folders(str(error), named.path)
        state = "it is not served" if entry.running is None else "the one before is served on"
        _log.error(
            "model %s cannot be loaded, %s: %s",
            named.name, state, error, exc_info=None if known else error,
        )  # fmt: skip
        return LoadFailed(f"model {named.name} cannot be loaded, {state}: {entry.reason}")

    async def _unload(self, name: str, entry: _Entry, forget: bool) -> None:
        async with entry.changing:
            if entry.running is not None:
                _log.info("model %s is not served any more", name)
            self._retire(entry, f"model {name} was unloaded")
            entry.reason = "unloaded"
            if forget:
                self._entries.pop(name, None)
        await self._changed()

    def _put(self, entry: _Entry, model: ServedModel) -> None:
        running = RunningModel(model, self._tracing, self._failed, self._tell)
        entry.running, entry.reason = running, ""
        self._running.add(entry.running)
        self._metrics.show_model(*_info(model))

    def _tell(self) -> None:
        """Something changed outside of a load."""
        self._spawn(self._tell_changed())

    async def _tell_changed(self) -> None:
        await self._changed()

    def _retire(self, entry: _Entry, why: str) -> None:
        """What the entry serves is not found any more, and ends in the background."""
        running, entry.running = entry.running, None
        if running is None:
            return
        self._metrics.hide_model(*_info(running.model))
        refusal = NotServing(f"{why} on this server; go on from next_index, or at another replica")
        entry.retiring = self._spawn(self._end(running, refusal))

    async def _end(self, running: RunningModel, why: NotServing) -> None:
        await running.model.end(why, self._drain_s)
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


def _listed(name: str, entry: _Entry) -> Listed:
    if entry.running is not None and entry.running.model.lost:
        return Listed(name, "", "UNAVAILABLE", "its device is lost; restart the server")
    if entry.running is not None:
        bundle_id = entry.running.model.bundle.manifest.bundle_id
        return Listed(name, bundle_id, "READY", entry.reason)
    return Listed(name, "", "LOADING" if entry.loading else "UNAVAILABLE", entry.reason)


def _info(model: ServedModel) -> tuple[str, str, str]:
    return model.name, model.bundle.manifest.bundle_id, model.engines[0].name
