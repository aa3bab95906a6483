"""Turns at the generator: one thread at a time, and a click before pictures that are only shown."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock with two queues. Whoever draws many images takes a turn for each."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken = False
        self._urgent = 0  # threads that wait in the first queue

    @contextmanager
    def first(self) -> Iterator[None]:
        """The next turn, for what a person waits for."""
        with self._condition:
            self._urgent += 1
            try:
                self._condition.wait_for(lambda: not self._taken)
            finally:
                self._urgent -= 1
            self._taken = True
        yield from self._turn()

    @contextmanager
    def later(self) -> Iterator[None]:
        """A turn while nobody asks for the next one."""
        with self._condition:
            self._condition.wait_for(lambda: not self._taken and not self._urgent)
            self._taken = True
        yield from self._turn()

    def _turn(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()
