"""The bundle: the contract between export and serving, on disk."""

from bundle.errors import BundleError, FileError, ManifestError, NotCalibrated
from bundle.open import Bundle, open_bundle

__all__ = ["Bundle", "BundleError", "FileError", "ManifestError", "NotCalibrated", "open_bundle"]
