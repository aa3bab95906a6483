"""Sizes that label files may have: that of the crop, or of the photograph it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelError
from training.images.image_set import ImageSet

Label = TypeVar("Label", bound=np.generic)


@dataclass(frozen=True)
class LabelSizes:
    """Label sizes that one image accepts; labels of either are resized to the crop."""

    height: int  # pixels of the crop
    width: int
    photo: tuple[int, int] | None  # (height, width) of the photograph; None: as the crop

    def scale(self, origin: object, size: tuple[int, int]) -> tuple[float, float]:
        """Factors of x and y from a label's (height, width) to the crop's.

        Raises LabelError, naming the file, when the image does not accept that size.
        """
        height, width = size
        if size not in {(self.height, self.width), self.photo}:
            also = "" if self.photo is None else f" or {self.photo[1]}x{self.photo[0]}"
            raise LabelError(
                f"{origin} is {width}x{height} pixels; its image is "
                f"{self.width}x{self.height}{also}{self._turned(size)}"
            )
        return self.width / width, self.height / height

    def has_area_of(self, size: tuple[int, int]) -> bool:
        """Whether an accepted size has as many pixels: a picture of any other need not be decoded
        to be refused, however its EXIF orientation turns it."""
        accepted = [(self.height, self.width), self.photo or (0, 0)]
        return size[0] * size[1] in [height * width for height, width in accepted]

    def _turned(self, size: tuple[int, int]) -> str:
        accepted = {(self.height, self.width), self.photo}
        if size[0] == size[1] or size[::-1] not in accepted:
            return ""
        return "; the label is of the photograph before its EXIF orientation turned it: turn both"

    def resized(self, origin: object, label: NDArray[Label]) -> NDArray[Label]:
        """Nearest-neighbor resize of a label [h, w] to the crop. Raises LabelError as `scale`."""
        h, w = label.shape
        self.scale(origin, (h, w))
        return label[_nearest(h, self.height)][:, _nearest(w, self.width)]


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Index of the old pixel under the center of each new pixel, [new]."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.int64)


def sizes_by_stem(images: ImageSet) -> dict[str, LabelSizes]:
    """Label sizes that each image accepts, by its stem."""
    crop = images.crop
    return {
        stem: LabelSizes(
            crop.height, crop.width, None if entry.source_size is None else entry.source_size[::-1]
        )
        for stem, entry in zip(images.stems, images.index.images, strict=True)
    }


def files_by_stem(
    folder: Path, suffixes: tuple[str, ...], sizes: Mapping[str, LabelSizes]
) -> dict[str, Path]:
    """Files of a folder with one of the suffixes and the stem of an image of the set.

    Other files are ignored: a data set may have labels of more images. Raises LabelError when no
    image has a label, or one image has two.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise LabelError(f"{folder} cannot be read ({error.strerror})") from error
    found: dict[str, Path] = {}
    for path in files:
        if path.stem not in sizes:
            continue
        if path.stem in found:
            raise LabelError(f"{path} and {found[path.stem].name} are both labels of {path.stem}")
        found[path.stem] = path
    if not found:
        some = ", ".join(sorted(sizes)[:2])
        raise LabelError(
            f"{folder} has no {' or '.join(suffixes)} named like an image of the set ({some} ...)"
        )
    return found
