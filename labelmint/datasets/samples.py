"""Single samples of a batch, and their encoding as PNG, JPEG, NPY and JSON.

Enter: batches. Leave: `Sample`s, and bytes of files. All encodings except JPEG are lossless, and
equal arrays give equal bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmint.batch import Batch
from labelmint.codec import Array
from labelmint.datasets.request import WITH_DEPTH, Request
from labelmint.model import Model
from labelmint.options import takes_bank

_OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "view", "camera", "weight")


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample of a batch; outputs that the model lacks are None."""

    index: int  # raw
    image: Array  # uint8 [H, W, 3]
    mask: Array | None  # uint8 [h, w], class ids at the label size
    keypoints: Array | None  # float32 [K, 3]: x, y in label pixels, confidence
    depth: Array | None  # float16 [h, w]
    uncertainty: float | None
    view: int | None = None  # code of the view bank; None: not from the bank
    camera: Array | None = None  # float32 [4] in the order of model.Camera, NaN: unknown
    weight: float | None = None  # corrects for a balance or proposal; None: without

    @property
    def key(self) -> str:
        """Stem of the file names: the raw index with at least 12 digits."""
        return f"{self.index:012d}"


def samples_from_batch(batch: Batch) -> Iterator[Sample]:
    """The samples of a batch with images."""
    assert batch.images is not None, "images are always requested"
    for n, index in enumerate(batch.indices.tolist()):
        yield Sample(
            index,
            batch.images[n],
            None if batch.masks is None else batch.masks[n],
            None if batch.keypoints is None else batch.keypoints[n],
            None if batch.depth is None else batch.depth[n],
            None if batch.uncertainty is None else shortest(batch.uncertainty[n]),
            None if batch.views is None else int(batch.views[n]),
            None if batch.cameras is None else batch.cameras[n],
            None if batch.weights is None else shortest(batch.weights[n]),
        )


def outputs_from_model(model: Model, request: Request) -> tuple[str, ...]:
    """Outputs of the model that a data set stores.

    Other tools' formats have no field for depth, and yolo-seg has none for keypoints; yolo-pose has
    the bounding box of the mask. View and camera exist only for views from the view bank, and the
    weight for a balance or a proposal.
    """
    absent = {"depth"} if request.format not in WITH_DEPTH else set()
    if request.format == "yolo-seg":
        absent |= {"keypoints"}
    if not takes_bank(request.sampling()):
        absent |= {"view", "camera"}
    if not request.weighted:
        absent |= {"weight"}
    return tuple(name for name in _OUTPUTS if name in model.outputs and name not in absent)


def image_suffix(request: Request) -> str:
    """Suffix of image files, without a dot."""
    return "jpg" if request.image_codec == "jpeg" else "png"


def encoded_image(image: Array, request: Request) -> bytes:
    """An image, uint8 [H, W, 3], as PNG, or as JPEG without chroma subsampling."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if request.image_codec == "png":
        return _saved(picture, "PNG")
    return _saved(picture, "JPEG", quality=request.jpeg_quality, subsampling=0)


def resized_mask(mask: Array, size: tuple[int, int]) -> Array:
    """The mask at this size, (height, width), by nearest neighbor."""
    if mask.shape == size:
        return mask
    picture = Image.fromarray(np.ascontiguousarray(mask))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))


def png_from_mask(mask: Array, palette: npt.NDArray[np.uint8]) -> bytes:
    """A mask, uint8 [h, w], as a palette PNG: viewers show colors, np.asarray gives class ids."""
    picture = Image.fromarray(np.ascontiguousarray(mask))
    # All 256 colors: Pillow would store a shorter palette with fewer bits per pixel.
    picture.putpalette(palette.tobytes())
    return _saved(picture, "PNG")


def png_from_gray(values: Array) -> bytes:
    """Values, uint8 or uint16 [h, w], as a gray PNG."""
    return _saved(Image.fromarray(np.ascontiguousarray(values)), "PNG")


def npy_from_array(array: Array) -> bytes:
    """An array as a file for np.load."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def json_from_keypoints(keypoints: Array) -> list[list[float | None]]:
    """[[x, y, confidence], ...] as decimals of the same float32; None if a value is not finite."""
    return [[shortest(value) for value in row] for row in keypoints]


def shortest(value: np.float32) -> float | None:
    """The shortest decimal that rounds to this float32; None if it is not finite."""
    number = float(str(np.float32(value)))
    return number if math.isfinite(number) else None


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
