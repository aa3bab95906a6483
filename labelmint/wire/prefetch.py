"""Things at hand: a thread that receives and decodes while the trainer computes."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from labelmint.errors import ClientClosed
from labelmint.wire.channel import OwnerProcess

_of_parents: list[object] = []  # of a fork's parent: grpc may crash where its calls are let go
WATCH_S = 0.25  # between looks at a source that keeps its reader waiting


class Sized(Protocol):
    """What is fetched."""

    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)
ItemOut = TypeVar("ItemOut", bound=Sized, covariant=True)


class Source(Protocol[ItemOut]):
    """What a prefetch reads from, such as labelmint.wire.resuming_stream.ResumingStream."""

    def messages(self) -> Iterator[ItemOut]: ...
    def watch(self) -> None: ...
    def close(self) -> None: ...


class Prefetch(Generic[Item]):
    """One source's messages, up to `max_bytes` and one message ahead of their reader."""

    def __init__(self, source: Source[Item], max_bytes: int) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._ready: deque[Item] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: Exception | None = None
        # A daemon, so that a stream which nobody closed cannot keep a process alive.
        self._thread = threading.Thread(target=self._fill, name="labelmint-prefetch", daemon=True)
        self._owner = OwnerProcess()
        self._thread.start()

    def get(self) -> Item | None:
        """The next message; None at the end. Raises what the source raised, after the messages
        before it, and ClientClosed once closed, which no end of the messages may look like, or in
        a fork."""
        self._owner.check()  # a fork has no thread that would fill it
        with self._changed:
            while not (self._ready or self._ended or self._closed):
                if not self._changed.wait(WATCH_S):
                    self._source.watch()
            if self._closed:
                raise ClientClosed
            if self._ready:
                message = self._ready.popleft()
                self._bytes -= message.nbytes
                self._changed.notify_all()
                return message
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Ends the source and its thread; harmless when closed, and in a fork."""
        if not self._owner.is_here:  # the lock may be held for ever there
            _of_parents.append(self)
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()
        if threading.current_thread() is not self._thread:  # a collector may run anywhere
            self._thread.join()

    def _fill(self) -> None:
        try:
            for message in self._source.messages():
                with self._changed:
                    while self._ready and self._bytes >= self._max_bytes and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    self._ready.append(message)
                    self._bytes += message.nbytes
                    self._changed.notify_all()
        except Exception as error:  # for the reader to see, a bug too
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class Prefetches:
    """Those of one client, which end together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: weakref.WeakSet[Prefetch[Any]] = weakref.WeakSet()
        self._closed = False

    def add(self, prefetch: Prefetch[Any]) -> None:
        """Closes it at once where the others were closed."""
        with self._lock:
            self._running.add(prefetch)
            closed = self._closed
        if closed:
            prefetch.close()

    def close(self) -> None:
        """Harmless when closed."""
        with self._lock:
            self._closed, running = True, list(self._running)
        for prefetch in running:
            prefetch.close()
