"""What can be wrong with a user's input to training.

TrainingError
├── LabelError      a labelled set that cannot be read, or does not fit the generator
└── RefinerError    a refiner's training that cannot start, or had to stop
"""


class TrainingError(Exception):
    """Base of the room; the message is one line for the user."""


class LabelError(TrainingError):
    """A labelled set that cannot be read, or does not fit the generator."""


class RefinerError(TrainingError):
    """A refiner's training that cannot start, or had to stop."""
