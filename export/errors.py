"""Errors of the package; every message is one line for the user.

ExportError
└── ParityError    the served graph differs from the reference by more than the tolerance
"""


class ExportError(Exception):
    """Base of the errors of this package."""


class ParityError(ExportError):
    """The served graph differs from the reference by more than the tolerance."""
