"""What a stream holds ready is bounded, in order, and gone when it is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from labelmint.batch import KeptSamples
from labelmint.errors import OutOfRange
from labelmint.wire.answers import Message
from labelmint.wire.prefetch import Prefetch

SAMPLE_BYTES = 100


class Counted:
    """A source that counts what is taken from it."""

    def __init__(self, messages: int, error: Exception | None = None) -> None:
        self.taken = 0
        self._messages, self._error = messages, error
        self._closed = threading.Event()

    def messages(self) -> Iterator[Message]:
        for number in range(self._messages):
            if self._closed.is_set():
                return
            self.taken += 1
            images = np.zeros((1, SAMPLE_BYTES), np.uint8)
            kept = KeptSamples(np.array([number], np.uint64), {"images": images})
            yield Message(kept, number + 1, "sha256:here")
        if self._error:
            raise self._error

    def watch(self) -> None: ...

    def close(self) -> None:
        self._closed.set()


def settled(source: Counted) -> int:
    """How many messages were taken when nothing more happens."""
    before = -1
    while before != source.taken:
        before = source.taken
        threading.Event().wait(0.1)
    return before


@pytest.mark.parametrize("max_bytes", [0, 1, 250, 1000])
def test_no_more_is_held_than_the_limit_and_one_message_that_waits(max_bytes: int) -> None:
    source = Counted(1000)
    prefetch = Prefetch(source, max_bytes)
    held = max(1, -(-max_bytes // SAMPLE_BYTES))
    assert settled(source) == held + 1
    for _ in range(5):
        prefetch.get()
    assert settled(source) == held + 6
    prefetch.close()


def test_messages_come_in_order_and_the_error_last() -> None:
    prefetch = Prefetch(Counted(50, OutOfRange("spent")), 300)
    got = [prefetch.get() for _ in range(50)]
    assert [message.next_index for message in got if message] == list(range(1, 51))
    for _ in range(2):
        with pytest.raises(OutOfRange, match="spent"):
            prefetch.get()
    prefetch.close()


def test_the_end_is_told_again_and_again() -> None:
    prefetch = Prefetch(Counted(1), 300)
    assert prefetch.get() is not None
    assert prefetch.get() is None and prefetch.get() is None
    prefetch.close()


def test_closing_ends_a_thread_that_waits_for_room() -> None:
    before = set(threading.enumerate())
    prefetch = Prefetch(Counted(1000), 100)
    prefetch.get()
    prefetch.close()
    prefetch.close()
    assert set(threading.enumerate()) <= before  # those of tests before may end
