"""Photographs from a folder, resized to the label crop, sorted by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.errors import TrainingError
from training.images.picture_files import FORMATS, opened_picture
from training.label_crop import LabelCrop

# Pillow modes with eight bits a channel; converting others (I;16, F) to RGB clips their values.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB",
         "HSV"}  # fmt: skip


@dataclass(frozen=True)
class RealImages:
    """n photographs sorted by name, turned upright and resized to the crop."""

    paths: list[Path]
    sizes: list[tuple[int, int]]  # (height, width) of the files, turned upright
    pixels: NDArray[np.uint8]  # [n, height, width, 3]
    ignored: list[str]  # names of files that are not images

    @property
    def names(self) -> list[str]:
        """File names of the cropped pictures: the stems of the originals with .png."""
        return [f"{path.stem}.png" for path in self.paths]


def real_images_from_folder(folder: Path, crop: LabelCrop) -> RealImages:
    """Reads every picture in a folder, in the order of their names; subfolders are skipped.

    Raises TrainingError naming the first file that cannot be used, and why.
    """
    paths, ignored = pictures_of_folder(folder)
    cropped, sizes = zip(*(cropped_picture(path, crop) for path in paths), strict=True)
    return RealImages(paths, list(sizes), np.stack(cropped), ignored)


def pictures_of_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """Paths of the pictures, sorted by name, and the names of the other files.

    Raises TrainingError when there is no picture, or two have the same stem.
    """
    paths, ignored = _files(folder)
    if not paths:
        raise TrainingError(
            f"{folder} holds no pictures: none of its files has a suffix like .jpg or .png"
        )
    _refuse_doubled(paths)
    return paths, ignored


def cropped_picture(path: Path, crop: LabelCrop) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Reads a picture, turns it by its EXIF orientation, and resizes it to the crop.

    Returns uint8 [height, width, 3], box-filtered when shrunk and bicubic when enlarged, and the
    upright file's (height, width). Raises TrainingError, among others when the aspect ratio is not
    the crop's.
    """
    image = upright_picture(path)
    width, height = image.size
    # A difference below one pixel is rounding, not another aspect ratio.
    if abs(height - width * crop.height / crop.width) >= 1:
        raise TrainingError(
            f"{path} is {width}x{height} pixels; crop it to {crop.width}:{crop.height} "
            f"(width:height), the shape of the labels, e.g. {_largest_fit(width, height, crop)}"
        )
    if (width, height) != (crop.width, crop.height):
        down = width >= crop.width and height >= crop.height
        filter_ = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
        image = image.resize((crop.width, crop.height), filter_)
    return np.array(image), (height, width)


def upright_picture(path: Path) -> Image.Image:
    """Reads a picture as RGB, turned by its EXIF orientation. Raises TrainingError."""
    with opened_picture(path) as opened:
        if opened.mode not in MODES:
            raise TrainingError(f"{path} has mode {opened.mode}; save it with eight bits a channel")
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data and np.array(image.convert("RGBA"))[..., 3].min() < 255:
            raise TrainingError(f"{path} has transparent pixels; save it without them")
        return image.convert("RGB")


def _largest_fit(width: int, height: int, crop: LabelCrop) -> str:
    """WIDTHxHEIGHT of the largest crop-shaped rectangle within a picture."""
    scale = min(width / crop.width, height / crop.height)
    return f"{max(1, round(crop.width * scale))}x{max(1, round(crop.height * scale))}"


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    try:
        files = sorted(
            path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
        )
    except OSError as error:
        raise TrainingError(f"{folder} cannot be read ({error.strerror})") from error
    pictures = [path for path in files if path.suffix.lower() in suffixes]
    return pictures, [path.name for path in files if path not in pictures]


def _refuse_doubled(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise TrainingError(
                f"{other} and {path} have one name, which their labels would share; rename one"
            )
