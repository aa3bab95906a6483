"""Errors about bundles; every message is one line for the user.

BundleError
├── ManifestError    manifest.json is missing, broken, of another format, or breaks a rule
├── FileError        a file of the bundle is missing or differs from the exported one
└── NotCalibrated    the bundle has no calibration for these sampling options
"""


class BundleError(Exception):
    """Base of all errors about bundles."""


class ManifestError(BundleError):
    """manifest.json is missing, broken, of another format, or breaks a rule."""


class FileError(BundleError):
    """A file of the bundle is missing or differs from the exported one."""


class NotCalibrated(BundleError):
    """The bundle has no calibration for these sampling options; the message gives the command."""
