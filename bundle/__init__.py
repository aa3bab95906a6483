"""Bundles on disk: the files that `export` writes and `engines` and `service` read."""

from bundle.errors import BundleError, FileError, ManifestError, NotCalibrated
from bundle.open import Bundle, open_bundle

__all__ = ["Bundle", "BundleError", "FileError", "ManifestError", "NotCalibrated", "open_bundle"]
