"""Masks from 8-bit index images, whose pixel values are class ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Classes
from training.errors import IMAGE_DECODE_ERRORS, LabelError
from training.labels.scaling import LabelSizes, files_by_stem


def masks_from_png(
    folder: Path, sizes: Mapping[str, LabelSizes], classes: Classes
) -> dict[str, NDArray[np.uint8]]:
    """Reads STEM.png of each labeled image: uint8 [H, W] by stem. Raises LabelError."""
    files = files_by_stem(folder, (".png",), sizes)
    return {stem: sizes[stem].resized(path, _mask(path, classes)) for stem, path in files.items()}


def _mask(path: Path, classes: Classes) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            mode, mask = image.mode, np.array(image)
    except IMAGE_DECODE_ERRORS as error:
        raise LabelError(f"{path} cannot be read as an image: {error}") from error
    if mode not in ("L", "P"):
        raise LabelError(f"{path} has mode {mode}; masks are 8-bit index images (mode L or P)")
    wrong = mask[(mask >= len(classes.cards)) & (mask != classes.ignore_id)]
    if wrong.size:
        ignored = (
            "" if classes.ignore_id is None else f", and {classes.ignore_id} marks ignored pixels"
        )
        raise LabelError(
            f"{path} has class id {wrong.max()}; with {len(classes.cards)} classes the largest is "
            f"{len(classes.cards) - 1}{ignored}"
        )
    return mask.astype(np.uint8)
