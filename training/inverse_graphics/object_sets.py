"""A running service -> multi-view sets: images, silhouettes and keypoints of objects by view.

The service's bundle needs a view bank and masks. Sets from downloaded folders
(downloaded_sets.py) are made by the same functions and are equal for equal samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from labelmint import Client, Model
from labelmint.batch import Batch
from labelmint.errors import LabelmintError
from labelmint.model import Camera, LabelClass
from nets.textured import Cameras
from training.errors import TrainingError

BATCH = 16  # images per batch of the stream
OBJECTS = 256  # default number of objects from a service


@dataclass(frozen=True)
class SetsConfig:
    """Which objects and views to take, and which classes are background."""

    objects: int | None  # None: all of a folder, or OBJECTS of a service
    views: int | None  # per object; None: all codes of the bank with an azimuth
    extent: int  # side of the square images, pixels
    background: tuple[str, ...]  # names of classes; empty: the class of id 0
    seed: int = 0  # seed of a service's stream and of the choice of views


class SetsOrigin(Protocol):
    """Metadata of the model behind the sets: of a service's (`labelmint.Model`), or of the one that
    a folder was downloaded from (`DownloadOrigin`)."""

    @property
    def bundle_id(self) -> str: ...
    @property
    def licences(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def label_size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[LabelClass, ...]: ...
    @property
    def keypoints(self) -> tuple[str, ...]: ...
    @property
    def view_bank(self) -> tuple[Camera, ...]: ...


@dataclass(frozen=True)
class ObjectSets:
    """V views of each of O objects, as square images; other shapes are padded to a square."""

    images: Tensor  # uint8 [O, V, 3, E, E]
    silhouettes: Tensor  # uint8 [O, V, E, E], 255 on the object
    codes: Tensor  # int64 [O, V], view codes of the bank, ascending
    keypoints: Tensor | None  # [O, V, K, 3]: x, y in image extents from the center, confidence
    numbers: tuple[int, ...] = ()  # objects' numbers in their stream, ascending; empty: no stream
    stream_seed: int = 0

    def __len__(self) -> int:
        return len(self.images)


def codes_of_objects(objects: int, views: int, bank: int, seed: int) -> NDArray[np.int64]:
    """Codes to take of each object from a bank of `bank` codes, int64 [objects, views], ascending.

    They are evenly spaced in the bank, from a random start for each object. Example: 3 views of a
    bank of 6 are codes 0, 2, 4 for one object and 1, 3, 5 for another.
    """
    return evenly_apart(starts_of_objects(objects, bank, seed), views, bank)


def starts_of_objects(objects: int, bank: int, seed: int) -> NDArray[np.int64]:
    """First code of each object, drawn uniformly from the bank, int64 [objects, 1]."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(bank, size=(objects, 1))


def evenly_apart(start: NDArray[np.int64], views: int, bank: int) -> NDArray[np.int64]:
    """Evenly spaced positions in a bank, from `start` [..., 1], ascending [..., views]."""
    return np.sort((start + np.arange(views) * bank // views) % bank, axis=-1)


def sets_from_service(target: str, config: SetsConfig) -> tuple[ObjectSets, Model]:
    """The first objects of the stream of the config's seed, and the served model.

    `target` is HOST:PORT. Raises TrainingError.
    """
    try:
        with Client(target) as client:
            model = client.model()
            refuse_model(model, config)
            bank, usable = len(model.view_bank), usable_codes(model)
            objects, views = config.objects or OBJECTS, config.views or len(usable)
            codes = usable[codes_of_objects(objects, views, len(usable), config.seed)]
            outputs = ["image", "mask", *(["keypoints"] if model.keypoints else [])]
            batches = client.stream(
                BATCH,
                seed=config.seed,
                views_per_object=bank,
                indices=(np.arange(objects)[:, None] * bank + codes).ravel(),
                outputs=outputs,
            )
            shown = tqdm(batches, total=-(-codes.size // BATCH), desc="images", unit="batch")
            sets = sets_from_batches(list(shown), codes, model, config)
            return replace(sets, numbers=tuple(range(objects)), stream_seed=config.seed), model
    except (LabelmintError, ValueError) as error:
        raise TrainingError(f"--source {target}: {error}") from error


def refuse_model(model: Model, config: SetsConfig) -> None:
    """Raises ValueError for a served model without the views that the config asks for."""
    if not model.view_bank:
        raise ValueError(
            "its bundle has no view bank; export it with --views (see `training views`)"
        )
    refuse_origin(model, config)
    usable = len(usable_codes(model))
    if config.views is not None and config.views > usable:
        raise ValueError(f"--views is {config.views}; its bank has {usable} with an azimuth")


def refuse_origin(origin: SetsOrigin, config: SetsConfig) -> None:
    """Raises ValueError when silhouettes or cameras are missing, for services and folders."""
    if not len(usable_codes(origin)):
        raise ValueError(
            "no view of its bank has an azimuth; make it with --cameras (see `training views`)"
        )
    if "mask" not in origin.outputs:
        raise ValueError("its bundle has no masks; silhouettes need a segmentation head")
    if origin.label_size != origin.image_size:
        raise ValueError(
            f"its masks are {origin.label_size} pixels (height, width), its images "
            f"{origin.image_size}; they must be equal"
        )
    names = [label.name for label in origin.classes]
    for name in config.background:
        if name not in names:
            raise ValueError(f"--background {name} is not among its classes: {', '.join(names)}")


def usable_codes(origin: SetsOrigin) -> NDArray[np.int64]:
    """Codes of the bank with a known azimuth, int64, ascending."""
    azimuths = np.array([camera.azimuth_deg for camera in origin.view_bank])
    return np.flatnonzero(~np.isnan(azimuths))


def cameras_of_bank(origin: SetsOrigin, distance: float, focal: float) -> Cameras:
    """The bank's cameras by code. Unknown distances and focal lengths take the given values,
    unknown elevations 0; unknown azimuths stay NaN."""
    azimuth, elevation, away, focals = torch.tensor(origin.view_bank).float().unbind(dim=1)
    return Cameras(
        torch.deg2rad(azimuth),
        torch.deg2rad(elevation.nan_to_num(0.0)),
        away.nan_to_num(distance),
        focals.nan_to_num(focal),
    )


def background_of(origin: SetsOrigin, config: SetsConfig) -> tuple[str, ...]:
    """Names of the classes that are not the object."""
    return config.background or (origin.classes[0].name,)


def sets_from_batches(
    batches: Sequence[Batch], codes: NDArray[np.int64], origin: SetsOrigin, config: SetsConfig
) -> ObjectSets:
    """Batches of samples, in the order of codes [O, V] -> sets of the config's extent."""
    background = [c.id for c in origin.classes if c.name in background_of(origin, config)]
    images, silhouettes, keypoints = [], [], []
    for batch in batches:
        assert batch.images is not None and batch.masks is not None  # both were requested
        images.append(torch.from_numpy(batch.images.copy()).permute(0, 3, 1, 2))
        on_object = torch.from_numpy(~np.isin(batch.masks, background))
        silhouettes.append(on_object[:, None].to(torch.uint8) * 255)
        if batch.keypoints is not None:
            keypoints.append(torch.from_numpy(batch.keypoints.copy()))
    shape = codes.shape
    points = torch.cat(keypoints).unflatten(0, shape) if keypoints else None
    return ObjectSets(
        images=on_square(torch.cat(images), config.extent).unflatten(0, shape),
        silhouettes=on_square(torch.cat(silhouettes), config.extent)[:, 0].unflatten(0, shape),
        codes=torch.from_numpy(codes),
        keypoints=None if points is None else points_on_square(points, origin.image_size),
    )


def on_square(images: Tensor, extent: int) -> Tensor:
    """uint8 [n, C, h, w] -> [n, C, extent, extent]: padded to a square with 0, then resized."""
    height, width = images.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = F.pad(images, (left, side - width - left, top, side - height - top))
    if side == extent:
        return square
    # Antialiasing keeps a silhouette's edge in place when it shrinks.
    resized = [
        F.interpolate(part.float(), size=(extent, extent), mode="bilinear", antialias=True)
        for part in square.split(256)
    ]
    return torch.cat(resized).round().clamp(0, 255).to(torch.uint8)


def points_on_square(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Keypoints [..., 3] (x, y in pixels of an image of `size` (height, width), confidence) -> x, y
    in extents of the padded square, from its center."""
    height, width = size
    center = points.new_tensor([width / 2, height / 2, 0.0])
    return (points - center) / points.new_tensor([max(size), max(size), 1.0])
