"""Errors about bundles; every message is one line for the user.

BundleError
├── ManifestError    manifest.json is missing, broken, of another format, or breaks a rule
├── FileError        a file of the bundle is missing or differs from the exported one
└── NotCalibrated    the bundle has no calibration for these sampling options
"""

import sys

MAX_MESSAGE_CHARACTERS = 4000  # a manifest may have longer words


class BundleError(Exception):
    """Base of all errors about bundles. Messages are printable, also where they quote a file."""

    def __init__(self, message: str) -> None:
        super().__init__(printable_line(message))


def printable_line(text: str) -> str:
    """Text that may come from a bundle, without line breaks and terminal sequences: they become
    escapes such as \\x1b, and what exceeds MAX_MESSAGE_CHARACTERS is left out."""
    shown = printable_text(text[:MAX_MESSAGE_CHARACTERS])
    return shown if len(text) <= MAX_MESSAGE_CHARACTERS else f"{shown}..."


def printable_text(text: str) -> str:
    """Text that may come from a bundle, whole, with such escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class ManifestError(BundleError):
    """manifest.json is missing, broken, of another format, or breaks a rule."""


class FileError(BundleError):
    """A file of the bundle is missing or differs from the exported one."""


class NotCalibrated(BundleError):
    """The bundle has no calibration for these sampling options; the message gives the command."""


def text_from_missing(error: ModuleNotFoundError) -> str:
    """What `python -m bundle` says when a package is not installed."""
    return (
        f"error: {error.name} is not installed for {sys.executable}: run this by .venv/bin/python, "
        "which `make setup` makes, or pip install -c constraints.txt '.[serve]' in the checkout"
    )
