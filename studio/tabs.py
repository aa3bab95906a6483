"""Tabs of the browser: what they are told, and which of them holds which image.

A tab is known by the stream of events that it reads; all tabs of a browser share one, since it
opens no more than six connections to a server. An image is held by the tab that opened it first,
until that tab opens another image or has no stream; other tabs may look at it, or take it.
What a tab without a stream asks to hold counts once its stream is open, if no other tab has asked
since: a tab may be closed before.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import msgspec

MAX_WAITING = 256  # events of a tab that does not read; then its stream ends, and it comes again
MAX_TABS = 64  # of one stream, and streams in all
ALIVE_S = 15.0  # between two signs of life on a quiet stream


class Tabs:
    """Streams and holds. `publish` may be called from any thread, all else from the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[str, asyncio.Queue[bytes | None]] = {}
        self._holders: dict[str, str] = {}  # stem -> tab
        self._lock = threading.Lock()

    def publish(self, kind: str, content: object) -> None:
        """Tells every tab an event."""
        data = b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(content))
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        for queue in set(self._queues.values()):
            if queue.qsize() >= MAX_WAITING:
                self._leave(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(data)

    async def events(self, tabs: Sequence[str]) -> AsyncIterator[bytes]:
        """The events for some tabs, until they leave. A stream before this one ends once it has
        none of its tabs left."""
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        former = {self._queues.pop(tab) for tab in tabs if tab in self._queues}
        self._queues |= dict.fromkeys(tabs, queue)
        streams = list(dict.fromkeys(self._queues.values()))  # the oldest first
        for other in {*former.difference(streams), *streams[:-MAX_TABS]}:
            self._leave(other)
            other.put_nowait(None)
        try:
            # All tabs: these may have lost an image meanwhile, and the others learn what they have.
            self.publish("holds", self.holders())
            yield b"retry: 1000\n\n"
            while True:
                try:
                    data = await asyncio.wait_for(queue.get(), ALIVE_S)
                except TimeoutError:
                    data = b": alive\n\n"
                if data is None:
                    return
                yield data
        finally:
            self._leave(queue)

    def _leave(self, queue: "asyncio.Queue[bytes | None]") -> None:
        """Forgets the tabs that read from a queue."""
        for tab in [tab for tab, own in self._queues.items() if own is queue]:
            del self._queues[tab]
            self.release(tab)

    def end_streams(self) -> None:
        """Ends all streams, as the server does itself before it ends."""
        for queue in set(self._queues.values()):
            queue.put_nowait(None)

    def hold(self, stem: str, tab: str, take: bool = False) -> bool:
        """Holds an image for a tab, which lets go of its others; False if another tab has it and
        `take` is not set."""
        with self._lock:
            holder = self._holders.get(stem)
            if holder not in (None, tab) and holder in self._queues and not take:
                return False
            if holder == tab:
                return True
            freed = [other for other, owner in self._holders.items() if owner == tab]
            for other in freed:
                del self._holders[other]
            self._holders[stem] = tab
        self.publish("holds", self.holders())
        return True

    def release(self, tab: str) -> None:
        """Lets go of all that a tab holds."""
        with self._lock:
            freed = [stem for stem, owner in self._holders.items() if owner == tab]
            for stem in freed:
                del self._holders[stem]
        if freed:
            self.publish("holds", self.holders())

    def holders(self) -> dict[str, str]:
        """The tab that holds each held image, of tabs with a stream."""
        with self._lock:
            return {stem: tab for stem, tab in self._holders.items() if tab in self._queues}
