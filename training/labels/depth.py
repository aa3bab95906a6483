"""Depth maps: 16-bit PNG times a scale, or float .npy; depth.toml says unit and scale."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Strict, read_toml
from training.errors import LabelError
from training.labels.scaling import Extents, files_by_stem

UNITS = "depth.toml"


class DepthFile(Strict, frozen=True):
    """depth.toml, in the folder of the maps."""

    unit: str  # what one stands for: "m", "relative" ...
    png_scale: float | None = None  # units of one step of a PNG's value; its 0 is unknown


def depth_unit(folder: Path) -> DepthFile:
    """Reads depth.toml. Raises CardError, LabelError."""
    file = read_toml(
        folder / UNITS, DepthFile, 'write the line unit = "m" (and png_scale = 0.001 for PNG)'
    )
    if file.png_scale is not None and not 0 < file.png_scale < float("inf"):
        raise LabelError(f"{folder / UNITS}: png_scale is {file.png_scale}; it must be above 0")
    return file


def depths_from_folder(
    folder: Path, extents: Mapping[str, Extents], units: DepthFile
) -> dict[str, NDArray[np.float32]]:
    """float32 [H, W] by stem; NaN where the depth is not known. Raises LabelError."""
    files = files_by_stem(folder, (".png", ".npy"), extents)
    return {
        stem: extents[stem].resized(
            path, _from_png(path, units) if path.suffix.lower() == ".png" else _from_npy(path)
        )
        for stem, path in files.items()
    }


def _from_png(path: Path, units: DepthFile) -> NDArray[np.float32]:
    if units.png_scale is None:
        raise LabelError(f"{path} needs png_scale in {UNITS}, the units of one step of its values")
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LabelError(f"{path} cannot be read as an image: {error}") from error
    if mode not in ("I;16", "I;16B", "I;16L", "I"):
        raise LabelError(f"{path} has mode {mode}; depth is a 16-bit grey PNG")
    depth = np.where(values == 0, np.nan, values * units.png_scale)
    return depth.astype(np.float32)


def _from_npy(path: Path) -> NDArray[np.float32]:
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(f"{path} cannot be read as a numpy array: {error}") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind != "f":
        raise LabelError(f"{path} must hold floats [H, W]; NaN is unknown")
    if np.isinf(depth).any():
        raise LabelError(f"{path} holds infinite depth; unknown pixels are NaN")
    return depth.astype(np.float32)
