"""A folder of photographs -> pixels of the crop, by name."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.errors import TrainingError
from training.label_crop import LabelCrop

# What eight bits a channel hold; others (I;16, F) would be cut off in conversion.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB",
         "HSV"}  # fmt: skip


@dataclass(frozen=True)
class RealImages:
    """n pictures, by name, upright and resized to the crop."""

    paths: list[Path]
    sizes: list[tuple[int, int]]  # width and height of the upright files
    pixels: NDArray[np.uint8]  # [n, height, width, 3]
    ignored: list[str]  # names of files that are no pictures

    @property
    def names(self) -> list[str]:
        """File names of the cropped pictures; their stems are the files' own."""
        return [f"{path.stem}.png" for path in self.paths]


def real_images_from_folder(folder: Path, crop: LabelCrop) -> RealImages:
    """Reads every picture of a folder, in the order of their names; folders in it are left.

    Raises TrainingError naming the first file that cannot be used, and why.
    """
    paths, ignored = pictures_of_folder(folder)
    cropped, sizes = zip(*(cropped_picture(path, crop) for path in paths), strict=True)
    return RealImages(paths, list(sizes), np.stack(cropped), ignored)


def pictures_of_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """Its pictures by name, and the names of its other files. Raises TrainingError when it has no
    pictures, or two of one name."""
    paths, ignored = _files(folder)
    if not paths:
        raise TrainingError(
            f"{folder} holds no pictures: none of its files has a suffix like .jpg or .png"
        )
    _refuse_doubled(paths)
    return paths, ignored


def cropped_picture(path: Path, crop: LabelCrop) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """uint8 [height, width, 3], turned as its EXIF orientation says, averaged down (or
    interpolated up) to the crop; and the width and height of the upright file.

    Raises TrainingError.
    """
    image = upright_picture(path)
    width, height = image.size
    # Less than a pixel of the file is rounding, not a wrong shape.
    if abs(height - width * crop.height / crop.width) >= 1:
        raise TrainingError(
            f"{path} is {width}x{height} pixels; crop it to {crop.width}:{crop.height} "
            f"(width:height), the shape of the labels, as {_cropped(width, height, crop)}"
        )
    if (width, height) != (crop.width, crop.height):
        down = width >= crop.width and height >= crop.height
        filter_ = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
        image = image.resize((crop.width, crop.height), filter_)
    return np.array(image), (width, height)


def upright_picture(path: Path) -> Image.Image:
    """RGB, turned as its EXIF orientation says. Raises TrainingError."""
    try:
        with _without_warnings(), Image.open(path) as opened:
            if opened.mode not in MODES:
                raise TrainingError(
                    f"{path} has mode {opened.mode}; save it with eight bits a channel"
                )
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data and np.array(image.convert("RGBA"))[..., 3].min() < 255:
                raise TrainingError(f"{path} has transparent pixels; save it without them")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path} cannot be read as an image: {error}") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """For damaged tags, which do not make a damaged picture, and large but allowed ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _cropped(width: int, height: int, crop: LabelCrop) -> str:
    """The largest size of the crop's shape within a picture, in words."""
    scale = min(width / crop.width, height / crop.height)
    return f"{max(1, round(crop.width * scale))}x{max(1, round(crop.height * scale))}"


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}
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
                f"{other} and {path} have one name; labels are found by it, so rename one"
            )
