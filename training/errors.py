"""Errors in a user's input to training; each message is one line.

TrainingError
├── LabelError      a labeled set that cannot be read, or does not fit the generator
└── RefinerError    a refiner's training that cannot start, or had to stop
"""

from labelmint.errors import printable_from_text


class TrainingError(Exception):
    """Any fault of a user's input to training; the message is one line for the user.

    It quotes names of files and labels, which may come from somebody else: it is printable.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_from_text(message))


class LabelError(TrainingError):
    """A labeled set that cannot be read, or does not fit the generator."""


class RefinerError(TrainingError):
    """A refiner's training that cannot start, or had to stop."""
