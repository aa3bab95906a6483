"""One sample at a time, and the bytes that its parts become in a file.

Enter: batches. Leave: `Sample`s, and PNG, JPEG, NPY and JSON of their arrays. All is lossless
but JPEG, and the same arrays give the same bytes.
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
from labelmint.datasets.request import Request
from labelmint.model import Model
from labelmint.options import takes_bank

_OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty", "view", "camera")


@dataclass(frozen=True, eq=False)
class Sample:
    """A row of a batch; what the model does not have is None."""

    index: int  # raw
    image: Array  # uint8 [H, W, 3]
    mask: Array | None  # uint8 [h, w], class ids on the label grid
    keypoints: Array | None  # float32 [K, 3], pixels of the label grid
    depth: Array | None  # float16 [h, w]
    uncertainty: float | None
    view: int | None = None  # code of the view bank, where views are of it
    camera: Array | None = None  # float32 [4] in the order of model.Camera, NaN: not known

    @property
    def key(self) -> str:
        """What its files are called: the raw index, in 12 digits or more."""
        return f"{self.index:012d}"


def samples_from_batch(batch: Batch) -> Iterator[Sample]:
    """The samples of a batch that has images."""
    assert batch.images is not None, "images are always asked for"
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
        )


def outputs_from_model(model: Model, request: Request) -> tuple[str, ...]:
    """Those that a data set is made of, as far as the model has them; COCO knows no depth, and
    only the view bank has codes and cameras."""
    absent = {"depth"} if request.format == "coco" else set()
    if not takes_bank(request.sampling()):
        absent |= {"view", "camera"}
    return tuple(name for name in _OUTPUTS if name in model.outputs and name not in absent)


def image_suffix(request: Request) -> str:
    """How image files end."""
    return "jpg" if request.image_codec == "jpeg" else "png"


def encoded_image(image: Array, request: Request) -> bytes:
    """uint8 [H, W, 3] as PNG, or as JPEG without chroma subsampling."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if request.image_codec == "png":
        return _saved(picture, "PNG")
    return _saved(picture, "JPEG", quality=request.jpeg_quality, subsampling=0)


def png_from_mask(mask: Array, palette: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [h, w] as a palette PNG: viewers show colours, np.asarray gives the class ids."""
    picture = Image.fromarray(np.ascontiguousarray(mask))
    picture.putpalette(palette.tobytes())  # all 256, or few classes would be packed in fewer bits
    return _saved(picture, "PNG")


def npy_from_array(array: Array) -> bytes:
    """Any array as a file for np.load."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def json_from_keypoints(keypoints: Array) -> list[list[float | None]]:
    """[[x, y, confidence], ...] that read back to the same float32; None is not finite."""
    return [[shortest(value) for value in row] for row in keypoints]


def shortest(value: np.float32) -> float | None:
    """The shortest decimal that is this float32 again, None when it is not finite."""
    number = float(str(np.float32(value)))
    return number if math.isfinite(number) else None


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
