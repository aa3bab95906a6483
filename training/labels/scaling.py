"""Labels may be drawn at the crop's size or at that of the photograph it was made from."""

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
class Extents:
    """Sizes that labels of one image may have."""

    width: int  # of the crop, in which labels are trained on
    height: int
    source: tuple[int, int] | None  # width and height of the photograph, where it differs

    def scale(self, path: Path, width: int, height: int) -> tuple[float, float]:
        """Factors of x and y from a label's size to the crop's. Raises LabelError."""
        if (width, height) not in {(self.width, self.height), self.source}:
            also = "" if self.source is None else f" or {self.source[0]}x{self.source[1]}"
            raise LabelError(
                f"{path} is {width}x{height} pixels; its image is {self.width}x{self.height}{also}"
            )
        return self.width / width, self.height / height

    def resized(self, path: Path, label: NDArray[Label]) -> NDArray[Label]:
        """[h, w] -> [height, width], the value at the place nearest to each pixel's centre."""
        self.scale(path, label.shape[1], label.shape[0])
        return label[nearest(label.shape[0], self.height)][:, nearest(label.shape[1], self.width)]


def nearest(old: int, new: int) -> NDArray[np.int64]:
    """Old index under the centre of each new pixel."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.int64)


def extents_by_stem(images: ImageSet) -> dict[str, Extents]:
    """What every image allows."""
    crop = images.crop
    return {
        stem: Extents(crop.width, crop.height, entry.source_size)
        for stem, entry in zip(images.stems, images.index.images, strict=True)
    }


def files_by_stem(
    folder: Path, suffixes: tuple[str, ...], extents: Mapping[str, Extents]
) -> dict[str, Path]:
    """The folder's files of these suffixes that belong to an image of the set.

    Others are left alone: a dataset has more labels than the set has images. Raises LabelError
    when there are none, or two for one image.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise LabelError(f"{folder} cannot be read ({error.strerror})") from error
    found: dict[str, Path] = {}
    for path in files:
        if path.stem not in extents:
            continue
        if path.stem in found:
            raise LabelError(f"{path} and {found[path.stem].name} are both labels of {path.stem}")
        found[path.stem] = path
    if not found:
        some = ", ".join(sorted(extents)[:2])
        raise LabelError(
            f"{folder} has no {' or '.join(suffixes)} named like an image of the set ({some} ...)"
        )
    return found
