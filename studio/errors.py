"""Errors of the studio; each message is one line for the person at the browser or the terminal.

StudioError             400: a request that cannot be right
├── NotFound            404: no such image, candidate or proposal
├── Conflict            409: the state of the project or another tab is in the way
├── Outdated            412: the label on disk is not the one that the tab has changed
└── TooLarge            413: a body longer than any that the studio reads
"""


class StudioError(Exception):
    """Any fault of a request or of a project."""

    status = 400


class NotFound(StudioError):
    """No such image, candidate or proposal."""

    status = 404


class Conflict(StudioError):
    """The state of the project, or another tab, is in the way."""

    status = 409


class Outdated(StudioError):
    """The label on disk is not the one that the tab has changed."""

    status = 412


class TooLarge(StudioError):
    """A body longer than any that the studio reads."""

    status = 413
