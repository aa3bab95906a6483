"""What can be wrong with a bundle; every message is one line for the user.

BundleError
├── ManifestError    manifest.json is missing, broken, of another format, or contradicts itself
├── FileError        a file of the bundle is missing or not the one that was exported
└── NotCalibrated    the bundle has no calibration for these sampling options
"""


class BundleError(Exception):
    """Base of the room."""


class ManifestError(BundleError):
    """manifest.json is missing, broken, of another format, or contradicts itself."""


class FileError(BundleError):
    """A file of the bundle is missing or not the one that was exported."""


class NotCalibrated(BundleError):
    """The bundle has no calibration for these sampling options; the message has the command."""
