"""Errors about weights files; every message is one line that names the file.

CheckpointError
├── CardError       the card (TOML beside the weights) is missing, broken or breaks a rule
└── WeightsError    the weights are broken, or do not fit the network of their card
    └── ForeignFileError    another project's file is unsafe, broken or of an unknown kind
"""


class CheckpointError(Exception):
    """Base of all errors about weights files."""


class CardError(CheckpointError):
    """The card is missing, broken, of another format, or breaks a rule."""


class WeightsError(CheckpointError):
    """The weights are broken, or do not fit the network of their card."""


class ForeignFileError(WeightsError):
    """Another project's file is unsafe, broken or of an unknown kind."""
