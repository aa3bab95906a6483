"""Prefetching: a thread that receives and decodes messages while the trainer computes.

Enters: a source of messages. Leave: the same messages, buffered.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from labelmint.errors import ClientClosed
from labelmint.wire.channel import OwnerProcess

# Prefetches of a fork's parent, kept alive: grpc may crash if their calls are freed in the fork.
_of_parents: list[object] = []
MAX_ITEMS = 4096  # in a prefetch: items without bytes, such as heartbeats, take memory too
WATCH_S = 0.25  # interval of PrefetchSource.watch while the reader waits


class Sized(Protocol):
    """An item of a prefetch."""

    @property
    def nbytes(self) -> int:
        """Bytes that the item takes in memory."""


Item = TypeVar("Item", bound=Sized)
ItemOut = TypeVar("ItemOut", bound=Sized, covariant=True)


class PrefetchSource(Protocol[ItemOut]):
    """What a prefetch reads from, such as a stream of labelmint.wire.resuming_stream."""

    def messages(self) -> Iterator[ItemOut]:
        """Yields the items, in the prefetch's thread."""

    def watch(self) -> None:
        """Called every WATCH_S while a reader waits, to end a call that is silent for too long."""

    def close(self) -> None:
        """Ends `messages` soon; called from any thread."""


class Prefetch(Generic[Item]):
    """Buffer of one source's items: up to max_bytes and MAX_ITEMS, and at least one item.

    `get` and `close` may run in any thread.
    """

    def __init__(self, source: PrefetchSource[Item], max_bytes: int) -> None:
        """Starts the thread at once."""
        self._source, self._max_bytes = source, max_bytes
        self._ready: deque[Item] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: Exception | None = None
        # A daemon thread, so that a stream that was not closed does not keep the process alive.
        self._thread = threading.Thread(target=self._fill, name="labelmint-prefetch", daemon=True)
        self._owner = OwnerProcess()
        self._thread.start()

    def get(self) -> Item | None:
        """The next item; waits for it. None at the end.

        Raises:
            Exception: the exception that the source raised, after all items before it.
            ClientClosed: the prefetch was closed, or this process is a fork.
        """
        self._owner.check()  # a fork does not have the thread
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
        """Ends the source and the thread. May be called again; does nothing in a fork."""
        if not self._owner.is_here:  # the parent's thread may have held the lock
            _of_parents.append(self)
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()
        if threading.current_thread() is not self._thread:  # a finalizer may run in that thread
            self._thread.join()

    def _full(self) -> bool:
        full = self._bytes >= self._max_bytes or len(self._ready) >= MAX_ITEMS
        return bool(self._ready) and full

    def _fill(self) -> None:
        try:
            for message in self._source.messages():
                with self._changed:
                    while self._full() and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    self._ready.append(message)
                    self._bytes += message.nbytes
                    self._changed.notify_all()
        except Exception as error:  # raised by `get`, even if it is a bug
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class Prefetches:
    """All prefetches of one client, to be closed together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: weakref.WeakSet[Prefetch[Any]] = weakref.WeakSet()
        self._closed = False

    def add(self, prefetch: Prefetch[Any]) -> None:
        """Adds a prefetch; closes it at once if `close` was called before."""
        with self._lock:
            self._running.add(prefetch)
            closed = self._closed
        if closed:
            prefetch.close()

    def close(self) -> None:
        """Closes all prefetches, and every later one; may be called again."""
        with self._lock:
            self._closed, running = True, list(self._running)
        for prefetch in running:
            prefetch.close()
