"""Masks as 8-bit index images: the pixel's value is the class id."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Classes
from training.errors import LabelError
from training.labels.scaling import Extents, files_by_stem


def masks_from_png(
    folder: Path, extents: Mapping[str, Extents], classes: Classes
) -> dict[str, NDArray[np.uint8]]:
    """<stem>.png of every labelled image -> uint8 [H, W] by stem. Raises LabelError."""
    files = files_by_stem(folder, (".png",), extents)
    return {stem: extents[stem].resized(path, _mask(path, classes)) for stem, path in files.items()}


def _mask(path: Path, classes: Classes) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            mode, mask = image.mode, np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LabelError(f"{path} cannot be read as an image: {error}") from error
    if mode not in ("L", "P"):
        raise LabelError(f"{path} has mode {mode}; masks are 8-bit index images (mode L or P)")
    wrong = mask[(mask >= len(classes.cards)) & (mask != classes.ignore_id)]
    if wrong.size:
        ignored = "" if classes.ignore_id is None else f", and {classes.ignore_id} is ignored"
        raise LabelError(
            f"{path} has class id {wrong.max()}; with {len(classes.cards)} classes the largest is "
            f"{len(classes.cards) - 1}{ignored}"
        )
    return mask.astype(np.uint8)
