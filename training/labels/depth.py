"""Depth maps from 16-bit PNG or float .npy files; depth.toml gives their unit and scale."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checkpoints import Strict, read_toml
from training.errors import LabelError
from training.images.picture_files import array_from_npy, opened_picture
from training.labels.scaling import LabelSizes, files_by_stem

DEPTH_TOML = "depth.toml"


class DepthFile(Strict, frozen=True):
    """Contents of depth.toml, which lies beside the depth maps."""

    unit: str  # "m", "relative", ...
    png_scale: float | None = None  # depth = png_scale * PNG value; value 0: unknown


def depth_file_of_folder(folder: Path) -> DepthFile:
    """Reads depth.toml. Raises CardError, LabelError."""
    depth_file = read_toml(
        folder / DEPTH_TOML, DepthFile, 'write the line unit = "m" (and png_scale = 0.001 for PNG)'
    )
    if depth_file.png_scale is not None and not 0 < depth_file.png_scale < float("inf"):
        raise LabelError(
            f"{folder / DEPTH_TOML}: png_scale is {depth_file.png_scale}; it must be above 0"
        )
    return depth_file


def depths_from_folder(
    folder: Path, sizes: Mapping[str, LabelSizes], depth_file: DepthFile
) -> dict[str, NDArray[np.float32]]:
    """Reads STEM.png or STEM.npy: float32 [H, W] by stem, NaN where unknown. Raises LabelError."""
    files = files_by_stem(folder, (".png", ".npy"), sizes)
    return {
        stem: sizes[stem].resized(
            path,
            _depth_from_png(path, depth_file, sizes[stem])
            if path.suffix.lower() == ".png"
            else _depth_from_npy(path),
        )
        for stem, path in files.items()
    }


def _depth_from_png(path: Path, depth_file: DepthFile, sizes: LabelSizes) -> NDArray[np.float32]:
    if depth_file.png_scale is None:
        raise LabelError(
            f"{path} needs png_scale in {DEPTH_TOML}, the depth of one step of its values"
        )
    with opened_picture(path) as image:
        sizes.scale(path, (image.height, image.width))
        mode, values = image.mode, np.array(image)
    if mode not in ("I;16", "I;16B", "I;16L", "I"):
        raise LabelError(f"{path} has mode {mode}; depth is a 16-bit gray PNG")
    depth = np.where(values == 0, np.nan, values * depth_file.png_scale)
    return depth.astype(np.float32)


def _depth_from_npy(path: Path) -> NDArray[np.float32]:
    depth = array_from_npy(path)
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise LabelError(f"{path} must hold floats [H, W], NaN where unknown")
    if np.isinf(depth).any():
        raise LabelError(f"{path} holds infinite depth; unknown pixels are NaN")
    return depth.astype(np.float32)
