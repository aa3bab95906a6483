"""Errors about weights files; every message is one line that names the file.

CheckpointError
├── CardError       the card (TOML beside the weights) is missing, broken or breaks a rule
└── WeightsError    the weights are broken, or do not fit the network of their card
    └── ForeignFileError    another project's file is unsafe, broken or of an unknown kind
"""

from bundle.errors import printable_line


class CheckpointError(Exception):
    """Base of all errors about weights files. Messages are printable, also where they quote a
    file."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_line(message))


class CardError(CheckpointError):
    """The card is missing, broken, of another format, or breaks a rule."""


class WeightsError(CheckpointError):
    """The weights are broken, or do not fit the network of their card."""


class ForeignFileError(WeightsError):
    """Another project's file is unsafe, broken or of an unknown kind."""
