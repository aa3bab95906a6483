"""Image sets: a folder of images and the latents that generate them.

    SET/images/*.png   the images
    SET/latents.npy    w+ [n, num_ws, w_dim], one row per image
    SET/index.json     the image of each row, with hashes of images and latents

`sample` and `invert` write a set, people add labels, `interpreter` and `evaluate` read it. Files
that no longer match the hashes are refused.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import write_text
from labelmint.datasets.stored_files import opened_regular_file
from nets.config import MAX_START, SQUARE, GeneratorConfig, stated_start
from training.errors import LabelError
from training.images.picture_files import array_from_npy, opened_picture
from training.label_crop import LabelCrop

INDEX, LATENTS, IMAGES = "index.json", "latents.npy", "images"
MAX_INDEX_BYTES = 64 << 20


class ImageEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One image of index.json; entry i belongs to row i of latents.npy."""

    file: str  # name within images/
    pixels_sha256: str  # SHA-256 of the RGB bytes
    source: str | None = None  # name of the photo, or index of the sample, it comes from
    source_size: tuple[int, int] | None = None  # (width, height) of the photo; None: as the crop
    psnr_db: float | None = None  # regenerated image against the photo; None: not inverted


class SetIndex(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Contents of index.json, which omits fields at their default."""

    format: Literal[1]
    generator_sha256: str  # SHA-256 of the weights file
    latents_sha256: str  # SHA-256 of the float32 values of latents.npy
    grid: int  # nominal extent of the label grid, see LabelCrop
    crop_top: int
    height: int
    made: dict[str, str | int | float | bool | None]  # provenance: command and settings
    images: list[ImageEntry]
    start: tuple[int, int] | None = None  # of LabelCrop; None: square images


@dataclass(frozen=True)
class ImageSet:
    """A set of n images and their latents; images are read on demand."""

    folder: Path
    index: SetIndex
    ws: NDArray[np.float32]  # [n, num_ws, w_dim]

    def __len__(self) -> int:
        return len(self.ws)

    @property
    def crop(self) -> LabelCrop:
        """Crop of the label grid that every image shows."""
        return crop_of_index(self.index)

    @property
    def stems(self) -> list[str]:
        """File names without suffix, by row; a label file has the stem of its image."""
        return [Path(entry.file).stem for entry in self.index.images]

    def image(self, row: int) -> NDArray[np.uint8]:
        """Reads uint8 [height, width, 3]. Raises LabelError if its hash has changed."""
        path = self.folder / IMAGES / self.index.images[row].file
        pixels = read_rgb(path, (self.crop.height, self.crop.width))
        if sha256_of_array(pixels) != self.index.images[row].pixels_sha256:
            raise LabelError(
                f"{path} is not the image that row {row} of {LATENTS} stands for: its pixels have "
                f"changed since {INDEX} was written"
            )
        return pixels

    def check_files(self) -> None:
        """Raises LabelError unless every image exists and has the hash of the index."""
        for row in range(len(self)):
            self.image(row)


def crop_of_index(index: SetIndex) -> LabelCrop:
    """The crop of the label grid that every image shows."""
    return LabelCrop(index.grid, index.crop_top, index.height, index.start or SQUARE)


def write_image_set(
    folder: Path,
    ws: NDArray[np.float32],  # [n, num_ws, w_dim]
    images: NDArray[np.uint8],  # [n, height, width, 3]
    crop: LabelCrop,
    entries: Sequence[ImageEntry],  # pixels_sha256 is filled in here
    generator_sha256: str,
    provenance: dict[str, str | int | float | bool | None],  # command and settings
) -> ImageSet:
    """Writes a set. The index is written last and atomically; a set without it is incomplete.

    Raises LabelError when the folder already holds a set, or two images have the same stem.
    """
    stems = [Path(entry.file).stem for entry in entries]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise LabelError(f"two images are called {doubled[0]}; their labels would share that name")
    refuse_existing_set(folder)
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for entry, pixels in zip(entries, images, strict=True):
        Image.fromarray(pixels).save(folder / IMAGES / entry.file)
    np.save(folder / LATENTS, ws)
    index = SetIndex(
        format=1,
        generator_sha256=generator_sha256,
        latents_sha256=sha256_of_array(ws),
        grid=crop.grid,
        crop_top=crop.crop_top,
        height=crop.height,
        made=provenance,
        images=[
            msgspec.structs.replace(entry, pixels_sha256=sha256_of_array(pixels))
            for entry, pixels in zip(entries, images, strict=True)
        ],
        start=stated_start(crop.start),
    )
    write_text(folder / INDEX, text_of_index(index))
    return ImageSet(folder, index, ws)


def text_of_index(index: SetIndex) -> str:
    """Contents of index.json."""
    return msgspec.json.format(msgspec.json.encode(index), indent=1).decode() + "\n"


def refuse_existing_set(folder: Path) -> None:
    """Raises LabelError if the folder already holds a set."""
    if (folder / INDEX).exists():
        raise LabelError(f"{folder} holds a set of images already; name another folder")


def image_set_from_folder(folder: Path) -> ImageSet:
    """Reads and checks index and latents. Raises LabelError naming the file and its fault."""
    index = _read_index(folder / INDEX)
    path = folder / LATENTS
    ws = read_latents(path)
    if len(ws) != len(index.images):
        raise LabelError(
            f"{path} has {len(ws)} rows, but {folder / INDEX} lists {len(index.images)} images; "
            "they must be equal"
        )
    if sha256_of_array(ws) != index.latents_sha256:
        raise LabelError(f"{path} is not the array {INDEX} was written with: its hash differs")
    return ImageSet(folder, index, ws)


def check_generator(
    images: ImageSet, config: GeneratorConfig, generator_sha256: str, generator: Path
) -> None:
    """Raises LabelError unless the set was made with this generator and fits its sizes."""
    if images.index.generator_sha256 != generator_sha256:
        raise LabelError(
            f"{images.folder} was made with a generator of SHA-256 "
            f"{images.index.generator_sha256}, {generator} has {generator_sha256}; give that "
            "generator, or make a set with this one"
        )
    expected = (config.num_ws, config.w_dim)
    if images.ws.shape[1:] != expected:
        raise LabelError(
            f"latents are {list(images.ws.shape[1:])} per image; this generator reads "
            f"{list(expected)} (num_ws, w_dim)"
        )
    crop = images.crop
    if crop.grid > config.resolution or crop.start != config.start:
        (rows, columns), (height, width) = crop.size, config.image_size
        raise LabelError(
            f"the grid of {images.folder} is {columns}x{rows}; this generator's images are "
            f"{width}x{height}"
        )


def read_latents(path: Path) -> NDArray[np.float32]:
    """Reads float32 [n, num_ws, w_dim], n >= 1, all finite. Raises LabelError."""
    ws = array_from_npy(path)
    if ws.ndim != 3 or ws.shape[0] == 0 or ws.dtype.kind != "f":
        raise LabelError(f"{path} must hold floats [n, num_ws, w_dim] with n of at least 1")
    if not np.isfinite(ws).all():
        raise LabelError(f"{path} holds values that are not finite")
    return ws.astype(np.float32)


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads a picture: uint8 [H, W, 3]. Raises LabelError.

    size: (height, width) that it has; another is refused before it is decoded.
    """
    with opened_picture(path) as image:
        if size is not None and image.size != size[::-1]:
            raise LabelError(
                f"{path} is {image.width}x{image.height} pixels; the images of its set are "
                f"{size[1]}x{size[0]}"
            )
        return np.array(image.convert("RGB"))


def sha256_of_array(array: NDArray[np.generic]) -> str:
    """SHA-256 of the values in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _read_index(path: Path) -> SetIndex:
    try:
        with opened_regular_file(path) as stream:
            data = stream.read(MAX_INDEX_BYTES)
        index = msgspec.json.decode(data, type=SetIndex)
    except OSError as error:
        raise LabelError(
            f"{path} cannot be read ({error.strerror}); `python -m training sample` and `invert` "
            "write it"
        ) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{path}: {' '.join(str(error).split())}") from error
    stems: set[str] = set()
    for entry in index.images:
        if Path(entry.file).name != entry.file or entry.file in ("", ".", ".."):
            raise LabelError(f"{path} names the file {entry.file!r}, which is no plain file name")
        if Path(entry.file).stem in stems:
            raise LabelError(f"{path} names two images {Path(entry.file).stem}")
        stems.add(Path(entry.file).stem)
    sides = index.start or SQUARE
    known = all(1 <= side <= MAX_START and index.grid * side % 4 == 0 for side in sides)
    if index.grid < 4 or index.crop_top < 0 or index.height < 1 or not known:
        raise LabelError(f"{path}: grid, start, crop_top or height is out of range")
    rows, _ = crop_of_index(index).size
    if index.crop_top + index.height > rows:
        raise LabelError(
            f"{path}: rows {index.crop_top}:{index.crop_top + index.height} lie outside the grid "
            f"of {rows}"
        )
    return index
