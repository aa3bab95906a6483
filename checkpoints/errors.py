"""What can be wrong with a weights file; every message is one line that names the file.

CheckpointError
├── CardError       the card (TOML beside the weights) is missing, broken or contradicts itself
└── WeightsError    the weights are broken, or not those of the card's network
    └── ForeignFileError    another project's file is unsafe, broken or of no kind we read
"""


class CheckpointError(Exception):
    """Base of the room."""


class CardError(CheckpointError):
    """The card is missing, broken, of another format, or contradicts itself."""


class WeightsError(CheckpointError):
    """The weights are broken, or not those of the card's network."""


class ForeignFileError(WeightsError):
    """Another project's file is unsafe, broken or of no kind we read."""
