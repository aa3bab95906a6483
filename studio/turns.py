"""Turns at the generator: one thread at a time, and a click before pictures that are only shown."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.errors import Conflict


class Turns:
    """A lock with two queues. Whoever draws many images takes a turn for each."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken = False
        self._urgent = 0  # threads that wait in the first queue
        self._ended = False

    @contextmanager
    def first(self) -> Iterator[None]:
        """The next turn, for what a person waits for. Raises Conflict once turns have ended."""
        with self._condition:
            self._urgent += 1
            try:
                self._take(lambda: not self._taken)
            finally:
                self._urgent -= 1
        yield from self._turn()

    @contextmanager
    def later(self) -> Iterator[None]:
        """A turn while nobody asks for the next one. Raises Conflict once turns have ended."""
        with self._condition:
            self._take(lambda: not self._taken and not self._urgent)
        yield from self._turn()

    def end(self) -> None:
        """Gives no turn any more: whoever waits for one would keep the server from its end."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def _take(self, is_free: Callable[[], bool]) -> None:
        self._condition.wait_for(lambda: self._ended or is_free())
        if self._ended:
            raise Conflict("the studio is ending")
        self._taken = True

    def _turn(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()
