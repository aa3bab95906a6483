"""Bundles on disk: the files that `export` writes and `engines` and `service` read."""

import sys

from bundle.errors import BundleError, FileError, ManifestError, NotCalibrated, text_from_missing

try:
    from bundle.open import Bundle, open_bundle
except ModuleNotFoundError as error:
    if sys.argv[0] != "-m":  # what it is while `python -m bundle` imports this, before __main__
        raise
    sys.exit(text_from_missing(error))

__all__ = ["Bundle", "BundleError", "FileError", "ManifestError", "NotCalibrated", "open_bundle"]
