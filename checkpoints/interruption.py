"""SIGINT and SIGTERM -> a command that ends with its work saved, and the exit code of a shell.

Outside a training loop these signals raise `Interrupted` at once. Within one they are held until
the step is over, because half an update cannot be resumed from; the loop then saves its state and
raises `Interrupted` itself.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], object]


class Interrupted(BaseException):
    """A signal ended the command; the message says what was saved, and how to go on.

    Not an Exception, so that no handler of errors takes it.
    """

    def __init__(self, number: int, saved: str = "nothing new was saved") -> None:
        super().__init__(saved)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class HeldSignal:
    """The first signal that arrived while signals were held."""

    number: int | None = None  # None: none arrived

    def __bool__(self) -> bool:
        return self.number is not None

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal arrived; the handler while signals are held."""
        self.number = self.number or number

    def end(self, saved: str) -> None:
        """Raises Interrupted if a signal arrived; `saved` says what was saved, and how to go on."""
        number, self.number = self.number, None
        if number is not None:
            raise Interrupted(number, saved)


def raise_on_signals() -> None:
    """From now on SIGINT and SIGTERM raise Interrupted in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    _replace_handlers(stop)


def end_command(interrupted: Interrupted, line: str) -> NoReturn:
    """Ends the command with a line and the exit code of its signal. Another signal changes nothing,
    as while the interpreter ends, where it would be a traceback. Raises SystemExit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    print(line, file=sys.stderr)
    sys.exit(interrupted.exit_code)


@contextmanager
def signals_held() -> Iterator[HeldSignal]:
    """Holds SIGINT and SIGTERM while the block runs; repeated ones count as one.

    A signal that the block did not end by raises Interrupted after it; within another such block it
    is held until the end of that one. In threads other than the main one, which no signal reaches,
    nothing is held.
    """
    held = HeldSignal()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    previous = _replace_handlers(held.note)
    try:
        yield held
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for handler in previous.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, HeldSignal) and held.number is not None:
                outer.note(held.number)
                held.number = None
    held.end("nothing new was saved")


def _replace_handlers(handler: Handler) -> dict[int, "signal._HANDLER"]:
    """Sets the handler of both signals and returns the former ones; ignored signals stay ignored,
    such as SIGINT in a shell's background job, and handlers that are not Python's stay."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    replaced = {n: old for n, old in previous.items() if old not in (None, signal.SIG_IGN)}
    for number in replaced:
        signal.signal(number, handler)
    return {int(number): former for number, former in replaced.items()}
